"""A page about a compiled accelerator, for people: what it computes, when, where, and what that costs."""

from intaglio.report.facts import Facts, Question, as_json, collect
from intaglio.report.page import render, trace_text

__all__ = ["Facts", "Question", "as_json", "collect", "render", "trace_text"]
