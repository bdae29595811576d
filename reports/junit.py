"""`junit.xml`: one test case per gate and per stage, for the test view of a CI server."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from foundation.record import StageRecord, Verdict
from reports.facts import Facts

NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids even when escaped (section 2.2)."""


def render(facts: Facts) -> str:
    """Return the file's text: a failed gate is a failure; an undecided one and an unfinished stage are errors."""
    root = ElementTree.Element("testsuites", name=xml_text(facts.record.name))
    gates = ElementTree.SubElement(root, "testsuite", name="gates")
    for verdict in facts.record.verdicts:
        _gate(gates, verdict)
    for change in facts.record.gate_changes:
        case = ElementTree.SubElement(
            gates, "testcase", classname="edgeproof.gates", name="gates fixed before the run"
        )
        ElementTree.SubElement(case, "system-out").text = xml_text(change.sentence)
    stages = ElementTree.SubElement(root, "testsuite", name="stages")
    for stage in facts.record.stages:
        _stage(stages, stage)
    for suite in (gates, stages):
        _count(suite, suite)
    _count(root, root)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _gate(suite: ElementTree.Element, verdict: Verdict) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="edgeproof.gates", name=xml_text(verdict.gate))
    if verdict.status == "failed":
        message = f"measured {verdict.value}, limit {verdict.limit}"
        ElementTree.SubElement(case, "failure", message=message, type="gate").text = xml_text(verdict.detail)
    elif verdict.status == "inconclusive":
        message = f"inconclusive, limit {verdict.limit}"
        ElementTree.SubElement(case, "error", message=message, type="inconclusive").text = xml_text(verdict.detail)
    elif verdict.status == "missing":
        message = f"not measured, limit {verdict.limit}"
        ElementTree.SubElement(case, "error", message=message, type="missing").text = xml_text(verdict.detail)


def _stage(suite: ElementTree.Element, stage: StageRecord) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="edgeproof.stages", name=xml_text(stage.name))
    case.set("time", f"{stage.seconds or 0.0:.3f}")
    if stage.status in ("failed", "not_measured"):
        error = xml_text(stage.error or "the run gives no reason")
        ElementTree.SubElement(case, "error", message=error, type=stage.status).text = error


def _count(element: ElementTree.Element, within: ElementTree.Element) -> None:
    element.set("tests", str(len(list(within.iter("testcase")))))
    element.set("failures", str(len(list(within.iter("failure")))))
    element.set("errors", str(len(list(within.iter("error")))))


def xml_text(text: str) -> str:
    """Return a text with a mark in place of what XML cannot hold."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
