"""Flows: stages in order, complete work skipped, a record of every run."""

from __future__ import annotations

from netflixdask.flow.catalogue import FlowFile, find_flows, load_flow, run_flow
from netflixdask.flow.flow import Flow, check_workdir, report_again, versions
from netflixdask.flow.plan import FlowPlan, plan_flow

__all__ = [
    "Flow",
    "FlowFile",
    "FlowPlan",
    "check_workdir",
    "find_flows",
    "load_flow",
    "plan_flow",
    "report_again",
    "run_flow",
    "versions",
]
