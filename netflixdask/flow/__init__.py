"""Flows: stages in order, complete work skipped, a record of every run."""

from __future__ import annotations

from netflixdask.flow.catalogue import FlowFile, find_flows, load_flow, run_flow
from netflixdask.flow.flow import Flow, versions

__all__ = ["Flow", "FlowFile", "find_flows", "load_flow", "run_flow", "versions"]
