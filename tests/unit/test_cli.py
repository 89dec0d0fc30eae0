"""The command line: help, exit codes, one line for each mistake, and no torch where none is needed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from harness import cli
from harness.cli import groups
from harness.reading.dataset import Dataset
from harness.records.schema import write_record
from harness.splits.splits import write_split
from tests.factories import make_record
from tests.unit import toys

REPOSITORY = Path(__file__).parents[2]
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def ltbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The real entry point, in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    monkeypatch.delenv("LTBENCH_MIRROR", raising=False)
    handlers = {number: signal.getsignal(number) for number in cli.ENDED}

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ltbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Outcome(int(caught.value.code or 0), *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def assert_one_error(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.endswith("\n")
    for part in parts:
        assert part in outcome.err


def test_what_is_no_option_may_be_a_key_of_recipes(ltbench: Command) -> None:
    run = ("run", "--dataset", "mnist5k", "--method", "ce")
    for words in (("--epochs", "5"), ("--epochs=5",)):
        assert_one_error(ltbench(*run, *words), "--epochs", "'epochs' is a key of recipes: --set epochs=5\n")
    assert_one_error(ltbench("doctor", "mnist5k", "--batch-size", "8"), "--set batch_size=8\n")
    assert "--set" not in ltbench(*run, "--unheard-of", "5").err
    assert "--set" not in ltbench("show", "--epochs", "5").err


def test_records_of_own_runs_are_pointed_to(ltbench: Command) -> None:
    assert_one_error(ltbench("show"), "results/records: no such folder", "or name folders: runs/records")
    for name in ("results/records", "runs/records"):
        Path(name).mkdir(parents=True)
    assert "from results/records and results/imported; for your own runs name their folder: runs/records" in (
        ltbench("show").err
    )
    assert ltbench("show", "runs/records").err.count("runs/records;") == 0


def test_backbones_of_this_project_come_first(ltbench: Command) -> None:
    lines = ltbench("list", "backbones").out.splitlines()
    own = [line for line in lines if line.endswith("of this project")]
    assert len(own) > 3
    assert lines[: len(own)] == sorted(own)


# ---- help and lists ------------------------------------------------------------------------------------------------


def test_contract_commands_are_there() -> None:
    assert set(COMMANDS) >= {
        "list", "fetch", "split", "train", "finetune", "evaluate", "collect", "report", "run",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert any(line.endswith(".") and not line.startswith("Usage") for line in lines), "says what it does"
    shown = re.sub(r"[\s│]", "", result.stdout)
    for parameter in typer.main.get_command(cli.app).commands[command].params:  # type: ignore[attr-defined]
        text = re.sub(r"\s", "", getattr(parameter, "help", None) or "")
        assert text in shown, f"{parameter.name}: something of its help is taken for markup"


def test_help_has_groups_and_every_command_is_in_one() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    panels = {groups.DATA, groups.RUNS, groups.SUITES, groups.RESULTS, groups.METHODS, groups.PROJECT}
    lost = [name for name, command in commands.items() if command.rich_help_panel not in panels]
    assert not lost, f"give them a rich_help_panel: {lost}"
    shown = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert all(f"─ {group} ─" in shown for group in panels)


def test_without_a_command_the_help_is_shown(ltbench: Command) -> None:
    done = ltbench()
    assert (done.code, done.err) == (2, "")
    assert "Usage: " in done.out


def test_version(ltbench: Command) -> None:
    from harness import __version__

    assert ltbench("--version") == Outcome(0, f"ltbench {__version__}\n", "")


@pytest.mark.parametrize(
    ("what", "name"),
    [("methods", "balanced_softmax"), ("datasets", "mnist5k"), ("backbones", "resnet32_cifar"), ("suites", "default")],
)
def test_lists(ltbench: Command, what: str, name: str) -> None:
    listed = ltbench("list", what)
    lines = listed.out.splitlines()
    assert ("random weights unless a recipe says `pretrained`" in listed.err) == (what == "backbones")
    assert any(line.split()[0] == name for line in lines)
    items = json.loads(ltbench("list", what, "--json").out)
    assert name in [item["name"] for item in items]
    assert len(items) == len(lines)


def test_variants_and_suites_are_listed_as_data(ltbench: Command) -> None:
    methods = {item["name"]: item for item in json.loads(ltbench("list", "--json").out)}
    assert "k64" in methods["tvmf"]["variants"]
    assert "common" in methods["tvmf"]["tracks"]
    assert all("(variants" not in item["description"] for item in methods.values())
    assert re.search(r"^tvmf .*\(variants: .*k64", ltbench("list").out, re.MULTILINE)
    suites = {item["name"]: item for item in json.loads(ltbench("list", "suites", "--json").out)}
    assert suites["default"]["splits"] == ["mnist5k-lt-if100"]
    assert suites["default"]["seeds"] == [0, 1, 2]
    assert "bbn" in suites["default"]["without"]
    assert suites["default"]["description"] != suites["mnist5k-all"]["description"]


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["list", "method"], ["'method'", "methods"]),
        (["fetch", "mnist5"], ["'mnist5'", "closest: mnist5k"]),
        (["split", "mnist5-lt-if100"], ["'mnist5'", "closest: mnist5k"]),
        (["split", "mnist5k"], ["'mnist5k' is not a split"]),
        (["split", "mnist5k-lt-if0.5"], ["at least 1"]),
        (["recipes", "--suite", "defualt"], ["default"]),
        (["train", "mnist5k-lt-if100", "tvfm@common", "--out", "x"], ["'tvfm'", "closest: tvmf"]),
        (["train", "mnist5k-lt-if100", "tvmf-k65@common", "--out", "x"], ["'k65'", "closest: k64"]),
        (["train", "mnist5k-lt-if100", "tvmf@comon", "--out", "x"], ["'comon'", "closest: common"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x", "--seeds", "0,a"], ["--seeds 0,a"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x", "--seeds", "0,0"], ["--seeds 0,0"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x", "--seeds", "-1"], ["--seeds -1"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x"], ["ltbench split mnist5k-lt-if100"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x", "--device", "cuda:99"], ["--device cuda:99"]),
        (["train", "mnist5k-lt-if100", "ce@common", "--out", "x", "--device", "gpu"], ["--device gpu", "cpu, cuda"]),
        (["finetune", "mnist5k-lt-if100", "crt", "--first", "x", "--out", "y/../x"], ["--out y/../x", "overwritten"]),
        (["evaluate", "mnist5k-lt-if100", "--run", "x", "--out", "y"], ["ltbench split mnist5k-lt-if100"]),
        (["run", "--dataset", "mnist5", "--method", "ce"], ["--dataset", "closest: mnist5k"]),
        (["run", "--dataset", "mnist5k", "--method", "c"], ["closest: ce"]),
        (["run", "--dataset", "mnist5k", "--method", "CE"], ["closest: ce"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--seeds", ""], ["--seeds"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--set", "epoch=2"], ["--set epoch=2", "'epochs'"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--set", "epochs"], ["--set epochs"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--imbalance-factor", "0.5"], ["at least 1"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--imbalance-factor", "nan"], ["--imbalance-factor"]),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--track", "paper"], ["paper", "mnist5k"]),
        (["run", "mnist5", "ce"], ["'mnist5'", "closest: mnist5k"]),
        (["run", "mnist5k-lt-if0.5", "ce"], ["at least 1"]),
        (["run", "mnist5k-lt-if50", "ce", "--imbalance-factor", "20"], ["--imbalance-factor 20", "mnist5k-lt-if50"]),
        (["run", "mnist5k", "ce@paper"], ["paper", "mnist5k"]),
        (["run", "mnist5k", "ce@common", "--track", "paper"], ["--track paper", "ce@common"]),
        (["run", "mnist5k", "ce", "--method", "tvmf"], ["ENTRY ce", "--method tvmf"]),
        (["run", "mnist5k"], ["ENTRY (or --method)"]),
        (["reproduce", "--out", "x"], ["--out: needs a RECORD"]),
        (["reproduce", "--device", "cpu"], ["--device: needs a RECORD"]),
        (["reproduce", "--dry-run", "--restore"], ["--dry-run: needs a RECORD"]),
        (["doctor", "mnist5", "ce"], ["closest: mnist5k"]),
        (["doctor"], ["SPLIT (or --dataset)"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(ltbench: Command, arguments: list[str], parts: list[str]) -> None:
    assert_one_error(ltbench(*arguments), *parts)


def test_nothing_is_written_by_a_mistake(ltbench: Command, tmp_path: Path) -> None:
    for option in (["--backbone", "resnet8_cifr"], ["--device", "gpu"], ["--set", "schedule=cosin"]):
        assert_one_error(
            ltbench("run", "--dataset", "mnist5k", "--method", "ce", "--seeds", "0", *option),
            "closest" if option[0] != "--device" else "gpu",
        )
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert left == [], option


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["lsit"], "list"),
        (["list", "--jsn"], "--json"),
        (["run", "--method", "ce"], "--dataset"),
        (["fetch"], "DATASET"),
        (["run", "--dataset", "mnist5k", "--method", "ce", "--imbalance-factor", "many"], "--imbalance-factor"),
    ],
)
def test_misspelt_commands_and_options_are_one_line_too(ltbench: Command, arguments: list[str], part: str) -> None:
    assert_one_error(ltbench(*arguments), part)


# ---- stages that need no torch -------------------------------------------------------------------------------------


def test_evaluate_and_collect(ltbench: Command, toy: Dataset, tmp_path: Path) -> None:
    split = toys.make_split()
    write_split(split, tmp_path / "results" / "splits" / "toy-lt-if4.json")
    toys.save_run(tmp_path / "cell", toys.make_run_info(split), [[0] * 12], [[0] * 6])
    out = Path("results/records/toy-lt-if4/common/ce")
    arguments = ("evaluate", "toy-lt-if4", "--run", "cell", "--run", "cell", "--out", out, "--seeds", "0")
    done = ltbench(*arguments, "--shots", "thirds")
    assert (done.code, done.out) == (0, f"{out}/seed0.json\n")
    assert ltbench("collect") == Outcome(0, "results/table.csv: 3 rows\n", "")
    assert_one_error(ltbench(*arguments, "--shots", "third"), "closest: thirds")


def test_collect_refuses_a_folder_that_is_not_there(ltbench: Command, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("old")
    assert_one_error(ltbench("collect", "resutls", "--out", "table.csv"), "resutls")
    assert (tmp_path / "table.csv").read_text() == "old"


def test_collect_outside_of_a_checkout(ltbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_one_error(ltbench("collect"), "results/records: no such folder")


def test_records_under_two_of_the_roots_count_once(ltbench: Command, tmp_path: Path) -> None:
    write_record(tmp_path / "records" / "a" / "seed0.json", make_record())
    (tmp_path / "link").symlink_to("records")
    for roots in (["records", "records"], ["records/a", "records"], ["records", "link", tmp_path]):
        assert ltbench("collect", *roots, "--out", "table.csv").out == "table.csv: 3 rows\n"


def test_a_damaged_record_is_reported_and_the_rest_collected(ltbench: Command, tmp_path: Path) -> None:
    write_record(tmp_path / "records" / "a.json", make_record())
    (tmp_path / "records" / "b.json").write_text("{")
    done = ltbench("collect", "records", "--out", "table.csv")
    assert (done.code, done.out) == (0, "table.csv: 3 rows\n")
    assert done.err.startswith("left out: records/b.json")


def test_fetch_and_split(ltbench: Command, toy: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "toy").mkdir(parents=True)
    (tmp_path / "mirror" / "toy" / toys.FILE).write_bytes(toys.CONTENT)
    assert ltbench("fetch", "toy", "--mirror", "mirror").out == "toy: verified in data/toy\n"
    done = ltbench("split", "toy-lt-if4", "--out", "splits")
    assert done.out == "splits/toy-lt-if4.json: 21 training images in 3 classes (12 ... 3)\n"
    (tmp_path / "data" / "toy" / toys.FILE).write_bytes(b"tampered")
    assert_one_error(ltbench("split", "toy-lt-if4", "--out", "splits"), "expected sha256", "ltbench fetch toy --repair")
    assert_one_error(ltbench("fetch", "toy", "--mirror", "mirror"), "--repair")
    assert ltbench("fetch", "toy", "--mirror", "mirror", "--repair").code == 0
    assert ltbench("split", "toy-lt-if4", "--out", "splits").code == 0


# ---- processes -----------------------------------------------------------------------------------------------------


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)


@pytest.mark.parametrize(
    "imported",
    [
        "harness", "harness.cli", "harness.spec.registry", "harness.spec.recipes", "harness.spec.suites",
        "harness.splits.splits", "harness.records.table",
        "harness.records.evaluate", "harness.records.collect", "harness.reporting.report", "harness.running.cells",
    ],
)  # fmt: skip
def test_torch_stays_out(imported: str) -> None:
    done = python(f"import sys, {imported}; sys.exit('torch' in sys.modules)")
    assert (done.returncode, done.stderr) == (0, "")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, atexit; sys.argv = ['ltbench', '--help']\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'pandas' in sys.modules, file=sys.stderr))\n"
        "from harness.cli import main; main()"
    )
    done = python(code)
    assert done.returncode == 0
    assert "evaluate" in done.stdout
    assert done.stderr == "False False\n"


def test_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "fetch", "mnist5"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no data set is named 'mnist5' (closest: mnist5k")
