"""The examples of docs/how-to/scale-by-load.md parse, and each metric and label in them exists."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
from ruamel.yaml import YAML

from backend.model_process.metrics import METRICS
from tests.deploy_files import grouped_by, selectors
from tests.docs.blocks import blocks_of

BLOCKS = [block for block in blocks_of("docs/how-to/scale-by-load.md") if block.tag == "yaml"]
KUBERNETES = {"namespace", "pod"}
"""Labels that Prometheus adds to a pod's series."""


def parsed(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(StringIO(text))


FILES = [parsed(block.text) for block in BLOCKS]
KINDS = {file["kind"]: file for file in FILES if isinstance(file, dict) and "kind" in file}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def check(expression: str) -> None:
    found = selectors(expression)
    assert found
    for selector in found:
        metric = METRICS[selector.name]
        labels = {"model", "version", *KUBERNETES, *({"device"} if metric.gauge else ()), metric.label}
        assert set(selector.matchers) <= labels
        for value in selector.matchers.get(metric.label, "").split("|") if metric.label else ():
            assert value in ("", *metric.values)
        assert all(kept <= labels for kept in grouped_by(expression))


def test_every_metric_that_is_named_exists() -> None:
    named = {name for file in FILES for text in strings(file) for name in re.findall(r"isochrone_\w+", text)}
    assert named <= set(METRICS)
    assert {name for name, metric in METRICS.items() if metric.gauge} <= named
    assert "nv_inference" not in "".join(block.text for block in BLOCKS)


def test_the_adapters_query_makes_the_metric_that_the_autoscaler_wants() -> None:
    [rule] = next(file for file in FILES if isinstance(file, dict) and "rules" in file)["rules"]
    series = re.match(r"\w+", rule["seriesQuery"])
    assert series is not None
    made = rule["metricsQuery"].replace("<<.Series>>", series[0]).replace("<<.LabelMatchers>>", 'namespace="n"')
    check(made.replace("<<.GroupBy>>", "pod"))
    check(rule["seriesQuery"].replace('!=""', '="x"'))
    assert rule["name"] == {"matches": series[0], "as": series[0]}
    [metric] = KINDS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert float(metric["pods"]["target"]["averageValue"]) > 0


def test_kedas_queries_ask_for_series_that_exist() -> None:
    triggers = [*KINDS["ScaledObject"]["spec"]["triggers"], *next(file for file in FILES if isinstance(file, list))]
    assert len(triggers) == 2
    for trigger in triggers:
        assert trigger["type"] == "prometheus"
        assert float(trigger["metadata"]["threshold"]) > 0
        check(trigger["metadata"]["query"])


@pytest.mark.parametrize("spec", ["queuedRequestsSpec", "runningRequestsSpec"])
def test_the_pickers_specifications_name_one_series_of_a_gauge(spec: str) -> None:
    plugins = {plugin["name"]: plugin for plugin in KINDS["EndpointPickerConfig"]["plugins"]}
    [engine] = plugins["metrics-extractor"]["parameters"]["engineConfigs"]
    assert engine["name"] == plugins["metrics-extractor"]["parameters"]["defaultEngine"]
    named = re.fullmatch(r"(\w+)\{(\w+)=(\w+)\}", engine[spec])
    assert named is not None
    assert METRICS[named[1]].gauge
    assert named[2] == "model"


def test_the_pickers_plugins_are_all_used() -> None:
    config = KINDS["EndpointPickerConfig"]
    used = {reference["pluginRef"] for profile in config["schedulingProfiles"] for reference in profile["plugins"]}
    for source in config["dataLayer"]["sources"]:
        used |= {source["pluginRef"], *(extractor["pluginRef"] for extractor in source["extractors"])}
    assert used == {plugin["name"] for plugin in config["plugins"]}
