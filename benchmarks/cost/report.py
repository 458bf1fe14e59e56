"""A result of `cost` as text: aligned for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..report.sections import Section
from ..report.tables import Table
from ..report.text import number, table
from .cores import read_core
from .result import NO_WORK, ArtifactCost, CostResult, OperatorCost, Work

Rows = list[tuple[str, ...]]

LAYERS_SHOWN = 15
ELSEWHERE = "(no layer)"


def cost_text(result: CostResult) -> str:
    """The totals, where they go by kernel and by layer (the most expensive ones), and the estimates."""
    lines = [*_conditions(result), "", *table(_totals(result))]
    for cost in result.artifacts:
        lines += ["", *table(_by_kernel(cost)), "", *table(_by_layer(cost)[: LAYERS_SHOWN + 1])]
    return "\n".join([*lines, "", *table(_estimates(result)), *_bases(result)])


def cost_markdown(result: CostResult) -> str:
    """The same for a document, with every layer."""
    parts = [*(f"- {line}" for line in _conditions(result)), "", *_markdown(_totals(result)), ""]
    for cost in result.artifacts:
        parts += [f"### {cost.name}", "", *_markdown(_by_kernel(cost)), "", *_markdown(_by_layer(cost)), ""]
    parts += ["### Milliseconds: estimated, not measured", "", *_markdown(_estimates(result)), ""]
    return "\n".join([*parts, *(f"- {line}" for line in _bases(result))]).rstrip() + "\n"


def cost_section(result: CostResult) -> Section:
    """The totals and the estimates as a section of the report."""
    header, *rows = _totals(result)
    _, *ranges = _estimates(result)
    text = "Counted, not measured: one frame, one thread; caches have no prefetcher; cycles are with all data in L1."
    notes = (
        *(
            f"Estimated, not measured: {name} on a {board} with {threads} threads takes {lowest} to {highest} ms."
            for name, board, threads, lowest, highest in ranges
        ),
        *_bases(result),
    )
    return Section("Counted on a Raspberry Pi's core", text, Table(header, tuple(rows), notes))


def _conditions(result: CostResult) -> Iterator[str]:
    yield "counted, not measured: one frame, one thread; caches have no prefetcher; cycles are with all data in L1"
    yield ", ".join(f"{name} {version}" for name, version in result.tools.items())
    yield from (f"{core}: {note}" for core, note in result.models.items())


def _totals(result: CostResult) -> Rows:
    header = ("artifact", "core", "M instr", "M loads", "M stores", "M cycles", "L1 miss k", "L2 miss k", "DRAM MB")
    rows: Rows = [(*header, "MAC/cycle", "of peak", "by layer")]
    for cost in result.artifacts:
        total = cost.total
        rate = cost.macs / max(total.cycles, 1)
        core = read_core(cost.core)
        peak = core.int8_macs_per_cycle if "int8" in cost.artifact else core.fp32_macs_per_cycle
        millions = (total.instructions, total.loads, total.stores, total.cycles)
        rows.append(
            (
                f"{cost.artifact} {cost.part.value}",
                cost.core,
                *(number(value / 1e6, 1) for value in millions),
                *(number(value / 1e3, 0) for value in (total.l1_misses, total.l2_misses)),
                number(total.dram_bytes / 1e6, 1),
                number(rate, 2),
                f"{rate / peak:.0%}",
                f"{cost.attributed:.1%}",
            )
        )
    return rows


def _by_kernel(cost: ArtifactCost) -> Rows:
    return _shares(cost, "kernel", lambda operator: operator.kernel.value)


def _by_layer(cost: ArtifactCost) -> Rows:
    return _shares(cost, "layer", lambda operator: operator.layer)


def _shares(cost: ArtifactCost, what: str, group: Callable[[OperatorCost], str]) -> Rows:
    """Work by groups of operators, the most cycles first."""
    groups: dict[str, Work] = {}
    macs: dict[str, int] = {}
    for operator in cost.operators:
        key = group(operator)
        groups[key] = groups.get(key, NO_WORK) + operator.work
        macs[key] = macs.get(key, 0) + operator.macs
    named = Work(*(sum(getattr(work, field) for work in groups.values()) for field in NO_WORK.__dataclass_fields__))
    groups[ELSEWHERE] = Work(*(getattr(cost.total, f) - getattr(named, f) for f in NO_WORK.__dataclass_fields__))
    rows: Rows = [(f"{cost.name}: {what}", "cycles", "M cycles", "M instr", "MAC/cycle", "L2 miss k", "DRAM MB")]
    for key, work in sorted(groups.items(), key=lambda item: -item[1].cycles):
        if not work.instructions:
            continue
        rows.append(
            (
                key,
                f"{work.cycles / max(cost.total.cycles, 1):.1%}",
                number(work.cycles / 1e6, 2),
                number(work.instructions / 1e6, 2),
                number(macs[key] / max(work.cycles, 1), 1) if macs.get(key) else "-",
                number(work.l2_misses / 1e3, 1),
                number(work.dram_bytes / 1e6, 2),
            )
        )
    return rows


def _estimates(result: CostResult) -> Rows:
    rows: Rows = [("estimated ms, not measured", "board", "threads", "from", "to")]
    for cost in result.artifacts:
        rows += [
            (cost.name, read_core(cost.core).board, str(e.threads), number(e.lowest_ms, 1), number(e.highest_ms, 1))
            for e in cost.estimates
        ]
    return rows


def _bases(result: CostResult) -> Iterator[str]:
    """On what the estimates rest, each sentence once."""
    found = {f"{cost.core}, {e.threads} threads: {e.basis}": None for cost in result.artifacts for e in cost.estimates}
    yield from found


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
