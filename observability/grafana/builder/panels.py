"""The kinds of panels. Each takes a title, a description, a unit, limits (or why there are none), and its queries."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    logs,
    piechart,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import piechart as pie_model
from grafana_foundation_sdk.models import text as text_model

from observability.grafana.builder.limits import Limits, NoLimits
from observability.grafana.builder.query import LOKI, POSTGRESQL, PROMETHEUS, LogQ, Query, Shape, Sql

Links = Sequence[dashboard.DashboardLink]


@dataclass
class Panel:
    """A panel before it has its place: the SDK's builder, and how many of the 24 columns and rows it takes."""

    builder: Any  # each kind of panel has a class of its own, without a common base that has the setters
    width: int
    height: int
    values: dict[str, str] = field(default_factory=dict)


def _dressed(
    builder: Any,
    title: str,
    about: str,
    unit: str,
    limits: Limits | NoLimits,
    queries: Sequence[Query],
    *,
    links: Links = (),
    empty: str = "No data",
    instant: bool = False,
    shape: Shape = "time_series",
) -> Any:
    reason = f"\n\nNo threshold: {limits.why}." if isinstance(limits, NoLimits) else ""
    builder.title(title).description(about + reason).unit(unit).no_value(empty).datasource(_datasource(queries))
    builder.data_links(list(links))
    if isinstance(limits, Limits):
        steps = [model.Threshold(value=value, color=colour) for value, colour in limits.steps]
        builder.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    for number, query in enumerate(queries):
        builder.with_target(query.target(chr(ord("A") + number), instant=instant, shape=shape))
    return builder


def _datasource(queries: Sequence[Query]) -> common_model.DataSourceRef:
    if isinstance(queries[0], Sql):
        return POSTGRESQL
    return LOKI if isinstance(queries[0], LogQ) else PROMETHEUS


def _coloured(builder: Any, limits: Limits | NoLimits) -> Any:
    by = model.FieldColorModeId.THRESHOLDS if isinstance(limits, Limits) else model.FieldColorModeId.PALETTE_CLASSIC
    return builder.color_scheme(dashboard.FieldColor().mode(by))


def lines(
    title: str,
    about: str,
    unit: str,
    limits: Limits | NoLimits,
    *queries: Query,
    links: Links = (),
    empty: str = "No data",
    width: int = 8,
    stacked: bool = False,
    most: float | None = None,
) -> Panel:
    """Lines over time from 0, `most` is the top of the axis; limits are dashed lines."""
    builder = _dressed(timeseries.Panel(), title, about, unit, limits, queries, links=links, empty=empty)
    builder.min(0).line_width(1).fill_opacity(30 if stacked else 8).show_points(common_model.VisibilityMode.AUTO)
    builder.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_model.LegendDisplayMode.TABLE)
        .placement(common_model.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    builder.tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    if most is not None:
        builder.max(most)
    if stacked:
        builder.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if isinstance(limits, Limits):
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED))
    return Panel(builder, width, 8)


def figure(
    title: str,
    about: str,
    unit: str,
    limits: Limits | NoLimits,
    *queries: Query,
    links: Links = (),
    empty: str = "No data",
    width: int = 3,
    height: int = 4,
    values: dict[str, str] | None = None,
) -> Panel:
    """A number as it is now, coloured by the limits; `values` puts words for numbers."""
    builder = _dressed(stat.Panel(), title, about, unit, limits, queries, links=links, empty=empty, instant=True)
    _coloured(builder, limits).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    builder.graph_mode(common_model.BigValueGraphMode.NONE)
    if isinstance(limits, Limits):
        builder.color_mode(common_model.BigValueColorMode.BACKGROUND)
    if values:
        builder.mappings([_words(values)])
    return Panel(builder, width, height)


def _words(values: dict[str, str]) -> model.ValueMap:
    return model.ValueMap(
        options={value: model.ValueMappingResult(text=word, index=n) for n, (value, word) in enumerate(values.items())}
    )


def bars(
    title: str,
    about: str,
    unit: str,
    limits: Limits | NoLimits,
    *queries: Query,
    links: Links = (),
    empty: str = "No data",
    width: int = 8,
) -> Panel:
    """One bar each, as they are now."""
    builder = _dressed(bargauge.Panel(), title, about, unit, limits, queries, links=links, empty=empty, instant=True)
    _coloured(builder, limits).min(0).orientation(common_model.VizOrientation.HORIZONTAL)
    builder.display_mode(common_model.BarGaugeDisplayMode.BASIC)
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return Panel(builder, width, 8)


def pie(title: str, about: str, unit: str, limits: NoLimits, query: Query, *, width: int = 6) -> Panel:
    """Parts of a whole, as they are now."""
    builder = _dressed(piechart.Panel(), title, about, unit, limits, [query], instant=True)
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    builder.display_labels([pie_model.PieChartLabels.NAME, pie_model.PieChartLabels.VALUE])
    return Panel(builder, width, 8)


def states(
    title: str,
    about: str,
    limits: Limits,
    *queries: Query,
    values: dict[str, str],
    empty: str = "No data",
    width: int = 12,
) -> Panel:
    """A band each over time, its colour and word by the value."""
    builder = _dressed(statetimeline.Panel(), title, about, "none", limits, queries, empty=empty)
    _coloured(builder, limits).mappings([_words(values)])
    return Panel(builder, width, 8)


def rows(
    title: str,
    about: str,
    unit: str,
    limits: Limits | NoLimits,
    query: Query,
    *,
    columns: dict[str, str],
    units: dict[str, str] | None = None,
    links: Links = (),
    empty: str = "No data",
    width: int = 24,
    height: int = 8,
) -> Panel:
    """A table as of now: `columns` are the query's columns in order with their headings, `units` of some headings."""
    builder = _dressed(
        table.Panel(), title, about, unit, limits, [query], links=links, empty=empty, instant=True, shape="table"
    )
    builder.with_transformation(
        model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
    )
    order = {name: number for number, name in enumerate(columns)}
    options = {"indexByName": order, "renameByName": columns, "excludeByName": {}}
    builder.with_transformation(model.DataTransformerConfig(id_val="organize", options=options))
    for heading in columns.values():  # a cell without a value is no table without rows
        builder.override_by_name(heading, [model.DynamicConfigValue(id_val="noValue", value="-")])
    for heading, its_unit in (units or {}).items():
        builder.override_by_name(heading, [model.DynamicConfigValue(id_val="unit", value=its_unit)])
    return Panel(builder, width, height)


def warmth(title: str, about: str, unit: str, limits: NoLimits, query: Query, *, width: int = 12) -> Panel:
    """A histogram over time; `query` sums `_bucket` by le."""
    builder = _dressed(heatmap.Panel(), title, about, "short", limits, [query], shape="heatmap")
    builder.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    return Panel(builder, width, 8)


def log_lines(title: str, about: str, query: LogQ, *, empty: str, width: int = 24) -> Panel:
    builder = logs.Panel().title(title).description(about).datasource(LOKI).no_value(empty)
    builder.show_time(True).enable_log_details(True).wrap_log_message(True)
    builder.sort_order(common_model.LogsSortOrder.DESCENDING).dedup_strategy(common_model.LogsDedupStrategy.NONE)
    builder.with_target(query.target("A", instant=False))
    return Panel(builder, width, 10)


def prose(title: str, about: str, markdown: str, *, width: int = 12, height: int = 8) -> Panel:
    builder = text.Panel().title(title).description(about).mode(text_model.TextMode.MARKDOWN).content(markdown)
    return Panel(builder, width, height)
