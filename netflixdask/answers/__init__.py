"""Answers: what a fitted model or a stage's artifact says to a question, as tables.

::

    model + holdout     ──▶ evaluate, cross_validate       metrics.parquet
    store               ──▶ tune                           trials.parquet
    model + users       ──▶ recommend                      recommendations/
    model + new ratings ──▶ fold_in, personal, update      a model that knows them
    model + pairs       ──▶ predict                        predictions/
    model + qualifying  ──▶ write_submission               the prize's text format
    submission          ──▶ check_submission               a report, with RMSE where it is judged
    neighbours + title  ──▶ similar, why_similar           a table
    factors + title     ──▶ similar_by_factors, explain    a table
    factors             ──▶ export                         .npy
    canopies            ──▶ draw_clusters                  one HTML page
"""

from __future__ import annotations

from netflixdask.answers.check import SubmissionReport, check_submission
from netflixdask.answers.cross_validate import CrossValidation, cross_validate
from netflixdask.answers.evaluate import evaluate
from netflixdask.answers.evaluation import Evaluation
from netflixdask.answers.explain import Explanation, explain
from netflixdask.answers.factor_space import export, similar_by_factors
from netflixdask.answers.fold_in import Personal, fold_in, personal, update
from netflixdask.answers.picture import draw_clusters
from netflixdask.answers.predict import predict
from netflixdask.answers.recommend import recommend
from netflixdask.answers.similar import Similar, find_similar, similar
from netflixdask.answers.submission import Submission, write_submission
from netflixdask.answers.tune import EPOCHS, Tuning, tune
from netflixdask.answers.why import Why, why_similar

__all__ = [
    "EPOCHS",
    "CrossValidation",
    "Evaluation",
    "Explanation",
    "Personal",
    "Similar",
    "Submission",
    "SubmissionReport",
    "Tuning",
    "Why",
    "check_submission",
    "cross_validate",
    "draw_clusters",
    "evaluate",
    "explain",
    "export",
    "find_similar",
    "fold_in",
    "personal",
    "predict",
    "recommend",
    "similar",
    "similar_by_factors",
    "tune",
    "update",
    "why_similar",
    "write_submission",
]
