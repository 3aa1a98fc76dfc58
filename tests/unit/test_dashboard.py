"""The Grafana dashboard shows every metric of this backend, and nothing that is not one."""

from __future__ import annotations

import re

import pytest

from backend.model_process.metrics import METRICS, Metrics
from tests.deploy_files import DEPLOY, dashboard, expressions, grouped_by, panels, queries, selectors, yaml

EXPORTED: dict[str, list[dict[str, str]]] = {}
for series, _ in Metrics().values():
    device = {"device": "cpu"} if series.name in METRICS and METRICS[series.name].gauge else {}
    EXPORTED.setdefault(series.name, []).append({"model": "m", "version": "1", **device, **dict(series.labels)})


@pytest.mark.parametrize("expression", expressions().values(), ids=expressions())
def test_a_query_asks_for_series_that_are_exported(expression: str) -> None:
    """Prometheus can parse it; each of its series exists, with its labels and each of the values it names."""
    asked = selectors(expression)
    assert asked
    for selector in asked:
        exported = EXPORTED[selector.name]
        for label, values in selector.matchers.items():
            assert all(label in labels for labels in exported), label
            for value in values.split("|"):
                assert any(re.fullmatch(value, labels[label]) for labels in exported), value
    for labels in grouped_by(expression):
        assert all(labels <= set(one) for selector in asked for one in EXPORTED[selector.name])


@pytest.mark.parametrize("expression", expressions().values(), ids=expressions())
def test_a_quantile_keeps_the_buckets_apart(expression: str) -> None:
    buckets = [selector for selector in selectors(expression) if selector.name.endswith("_bucket")]
    assert len(buckets) == expression.count("histogram_quantile(")
    if buckets:
        assert all("le" in labels for labels in grouped_by(expression))


def test_every_metric_is_shown() -> None:
    shown = {selector.name for expression in expressions().values() for selector in selectors(expression)}
    bases = {re.sub("_(bucket|sum|count)$", "", name) if name not in METRICS else name for name in shown}
    assert bases == set(METRICS)


def test_the_model_is_chosen_from_those_that_are_served() -> None:
    [variable] = dashboard()["templating"]["list"]
    assert variable["name"] == "model"
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
    assert label in EXPORTED[metric][0]
    asked = sum(len(selectors(expression)) for expression in expressions().values())
    assert sum(query.count('{model=~"$model"') for query in queries().values()) == asked


def test_every_query_goes_to_the_provisioned_data_source() -> None:
    [source] = yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert dashboard()["templating"]["list"][0]["datasource"] == wanted
    for panel in panels():
        assert panel["datasource"] == wanted
        assert all(target["datasource"] == wanted for target in panel["targets"])


def test_panels_say_what_they_show_in_which_unit() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        microseconds = any("_us_bucket" in target["expr"] for target in panel["targets"])
        assert (panel["fieldConfig"]["defaults"]["unit"] == "µs") == microseconds


def test_panels_do_not_overlap() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        cells = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert x + w <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
