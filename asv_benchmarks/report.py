"""Report: the figures of `peers.py` as lines for a terminal, as a table in Markdown, and as a chart.

A document is what `peers.py --json` writes: machine, cores, dtype, rounds, versions, and the figures of each work.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arena import library_of
from benchmarks.common import WORKS, Work

Document = dict[str, Any]

TITLES = {"numpy": "NumPy", "sklearn": "scikit-learn", "torch": "PyTorch", "jax": "JAX", "keras": "Keras"}
# Okabe and Ito's colours, which the colour-blind tell apart; the markers differ as well
LOOKS = {
    "numpy": ("#0072B2", "o"), "sklearn": ("#E69F00", "s"), "torch": ("#D55E00", "^"), "jax": ("#009E73", "D"),
    "keras": ("#CC79A7", "v"),
}  # fmt: skip
FORMS = (
    "Each library in its best form: PyTorch eager with the fused optimizer or its whole step compiled, JAX as one "
    "jitted scan with its parameters by layer or in one vector, and NumPy, PyTorch and JAX on all cores or on one."
)
HEADS = f"{'ms/epoch':>10} {'ratio':>7} {'floor':>6} {'bound':>6} {'of peak':>7} {'threads':>7} {'loss':>12}"


def best_of_libraries(figures: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of each library's best form."""
    best: dict[str, float] = {}
    for name, seconds in figures["seconds"].items():
        library = library_of(name)
        best[library] = min(seconds, best.get(library, seconds))
    return best


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield a line for fastbp, and one for each form of a peer."""
    ours = figures["seconds"]["fastbp"]
    verdict = "" if figures["ratio"] >= figures["floor"] else "  MISSED"
    yield (
        f"  {'fastbp':27} {1e3 * ours:10.2f} {figures['ratio']:7.2f} {figures['floor']:6.2f} {figures['bound']:6.2f} "
        f"{100 * figures['share']:5.0f} % {figures['threads']:7} {figures['quality']['fastbp']:12.6g}{verdict}"
    )
    for peer, seconds in sorted(figures["seconds"].items(), key=lambda item: item[1]):
        if peer != "fastbp":
            yield f"  {peer:27} {1e3 * seconds:10.2f} {seconds / ours:7.2f} {figures['quality'][peer]:42.6g}"


def title_of(name: str, work: Work) -> str:
    """Return what is trained, in a few words."""
    update = {"sgd": "SGD", "adam": "Adam"}[work.update]
    rows = f"{work.n:,}".replace(",", " ")
    batch = f"full batch of {rows}" if work.batch_size == work.n else f"batch {work.batch_size}, {rows} rows"
    zeros = ", no inputs are zero" if not work.zeros else ""
    return f"{name.removesuffix('-dense')} {work.hidden}, {update}, {batch}{zeros}"


def markdown(document: Document) -> str:
    """Return the table of milliseconds an epoch; in brackets how many times as fast fastbp is."""
    works = document["works"]
    bests = {name: best_of_libraries(figures) for name, figures in works.items()}
    libraries = [library for library in TITLES if any(library in best for best in bests.values())]
    heads = ["work", "fastbp", "of the peak", *(TITLES[library] for library in libraries), "floor", "bound"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, figures in works.items():
        ours = figures["seconds"]["fastbp"]
        cells = [title_of(name, WORKS[name]), milliseconds(ours), f"{100 * figures['share']:.0f} %"]
        for library in libraries:
            theirs = bests[name].get(library)
            cells.append("" if theirs is None else f"{milliseconds(theirs)} ({theirs / ours:.3g})")
        cells += [f"{figures['floor']:.3g}" if figures["floor"] else "", f"{figures['bound']:.2g}"]
        rows.append(f"| {' | '.join(cells)} |")
    cores, machine, dtype = document["cores"], document["machine"], document["dtype"]
    turns = f"the best of {document['rounds']} turns"
    about = f"{machine}, {cores} cores, {dtype}, {turns}; {document['versions']}. {FORMS}"
    return "\n".join([*rows, "", about])


def milliseconds(seconds: float) -> str:
    """Return them with three digits, or more where they stand before the point."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def draw(document: Document, path: Path) -> None:
    """Draw how many times as long as fastbp each library takes; a bar marks the floor. Needs matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    works = document["works"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 9}):
        figure = Figure(figsize=(8, 0.62 * len(works) + 1.1), layout="constrained")
        axes = figure.subplots()
        axes.axvline(1, color="black", lw=1, label="fastbp")
        for y, figures in enumerate(works.values()):
            best = best_of_libraries(figures)
            floor = figures["floor"]
            if floor:
                axes.plot([floor, floor], [y - 0.3, y + 0.3], color="0.7", lw=4, label="floor" if y == 0 else None)
            for library, seconds in best.items():
                if library != "fastbp":
                    color, marker = LOOKS[library]
                    axes.plot(seconds / best["fastbp"], y, marker, color=color, ms=7, mec="white", mew=0.6, zorder=3)
        for library in TITLES:
            if any(library in best_of_libraries(figures) for figures in works.values()):
                color, marker = LOOKS[library]
                axes.plot([], [], marker, color=color, ms=7, label=TITLES[library])
        axes.set_yticks(range(len(works)), [title_of(name, WORKS[name]) for name in works])
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel=f"time of an epoch, times that of fastbp ({document['dtype']})")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.grid(axis="x", which="major", alpha=0.4)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", ncols=len(TITLES) + 2, frameon=False, handletextpad=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
