"""`python -m steerlab audit`: pairs of continuations for a person's blind eye, and what people say beside the scorers.

`audit sample` writes pairs of a steered and an unsteered continuation of the same prompt, left and right by lot, and
apart from them the key. `audit table` takes the file back once a person, or several in copies of it, has filled it.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.experiment import names
from steerlab.experiment.plan import aligned
from steerlab.store import write_atomically
from steerlab.terminal import one_line, write

if TYPE_CHECKING:
    import pandas as pd

PAIRS, KEY = "pairs.csv", "key.csv"


def add(parser: argparse.ArgumentParser) -> None:
    """The two commands below `audit`."""
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True, metavar="command")
    sample = commands.add_parser("sample", help="write pairs for a person, and the key")
    sample.add_argument("--model", required=True)
    sample.add_argument("--method", required=True, help="the steered side, a method or variant of a run")
    sample.add_argument("--against", default="base", help="the other side (default base)")
    sample.add_argument("--task", default="toxicity", help="(default toxicity)")
    sample.add_argument("--strength", type=float, help="of the method, where it was run at several")
    sample.add_argument("--pairs", type=int, default=100, help="(default 100)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--folder", type=Path, help="default results/audit/<model>/<method>/<task>")
    sample.set_defaults(run=_told(_sample))
    table = commands.add_parser("table", help="what people say beside what the scorers say")
    table.add_argument("filled", nargs="+", type=Path, help=f"{PAIRS}, filled; copies of it for several people")
    table.add_argument("--csv", type=Path, help="write the table to this file, too")
    table.set_defaults(run=_told(_table))


def _told(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    def run(chosen: argparse.Namespace) -> None:
        try:
            command(chosen)
        except (ValueError, OSError) as error:
            sys.exit(f"audit: {one_line(error)}")

    return run


def _sample(chosen: argparse.Namespace) -> None:
    import pandas as pd

    from steerlab.data import tables
    from steerlab.metrics import audit

    folder = chosen.folder or Path("results/audit", chosen.model, chosen.method, chosen.task)
    if (folder / PAIRS).exists():
        raise ValueError(f"{folder / PAIRS} is there and may be filled; move it, or give another --folder")
    at = {"model": chosen.model, "task": chosen.task, "split": "test"}
    scores = pd.read_parquet(names.TEXT_SCORES.format(**at, method=chosen.method))
    sides = [_continuations(at, chosen.method, chosen.strength), _continuations(at, chosen.against, None)]
    prompts = dict(tables.prompts(Path(names.TABLE.format(**at)), split="test", rendering="plain"))
    measured = list(scores["quantity"].unique())
    quantity = chosen.task if chosen.task in measured else measured[0]
    how = {"quantity": quantity, "n": chosen.pairs, "seed": chosen.seed}
    shown, key = audit.pairs(sides[0], sides[1], prompts, **how)
    about = {"method": chosen.method, "against": chosen.against, "strength": sides[0]["strength"].iloc[0]}
    key = key.assign(quantity=quantity, **at, **about)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in ((KEY, key), (PAIRS, shown)):
        write_atomically(folder / name, lambda path, frame=frame: frame.to_csv(path, index=False))
    write(
        f"{len(shown)} pairs in {folder / PAIRS}: write left, right or same in {audit.ASKED}{quantity}, without a look "
        f"at {KEY}; then python -m steerlab audit table {folder / PAIRS}\n"
    )


def _continuations(at: Mapping[str, str], method: str, strength: float | None) -> "pd.DataFrame":
    """Of all seeds, at one strength; raises ValueError where there is none, or several and none was chosen."""
    import pandas as pd

    pattern = Path(names.GENERATIONS.format(**at, method=method, seed="*"))
    files = sorted(pattern.parent.glob(pattern.name))
    if not files:
        raise ValueError(f"{pattern.parent} has no continuations; run that cell first")
    found = pd.concat([pd.read_parquet(file).assign(seed=int(file.stem)) for file in files])
    there = sorted(found["strength"].unique())
    if strength is None and len(there) > 1:
        raise ValueError(f"{method} was run at strengths {', '.join(map(str, there))}; choose one with --strength")
    wanted = there[0] if strength is None else strength
    if wanted not in there:
        raise ValueError(f"{method} was not run at strength {wanted}; there are {', '.join(map(str, there))}")
    return found[found["strength"] == wanted]


def _table(chosen: argparse.Namespace) -> None:
    import pandas as pd

    from steerlab.metrics import audit

    key = pd.read_csv(chosen.filled[0].with_name(KEY))
    people = {file.stem: audit.judged(pd.read_csv(file), key) for file in chosen.filled}
    about = key.iloc[0]
    at = {name: about[name] for name in ("model", "task", "split")}
    scores = [_scores(at, about["method"], about["strength"]), _scores(at, about["against"], None)]
    scores = [each[each["quantity"] == about["quantity"]] for each in scores]
    rows = audit.agreement(people, audit.scored(key, *scores))
    write("\n".join(aligned([audit.COLUMNS, *map(_shown, rows)])) + "\n")
    if chosen.csv:
        write_atomically(chosen.csv, lambda path: audit.table(rows).to_csv(path, index=False))


def _scores(at: Mapping[str, str], method: str, strength: float | None) -> "pd.DataFrame":
    import pandas as pd

    pattern = Path(names.TEXT_SCORES.format(**at, method=method))
    found = pd.concat([pd.read_parquet(file) for file in sorted(pattern.parent.glob("texts*.parquet"))])
    return found if strength is None else found[found["strength"] == strength]


def _shown(row: Sequence) -> tuple[str, ...]:
    name, n, decided, less, (low, high), other, share, kappa = row
    numbers = [f"{less:.2f}", f"{low:.2f} to {high:.2f}", other, f"{share:.2f}", f"{kappa:.2f}"]
    return (name, str(n), str(decided), *(each.replace("nan to nan", "-").replace("nan", "-") for each in numbers))
