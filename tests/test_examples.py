"""The examples in their quick modes: picture and table, a run that is stopped and resumed, bad input in one line."""

import doctest
import importlib
import pathlib
import re
import runpy
import signal
import sys

import matplotlib.image
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
TITLES = {
    "language_model": ["optimizer", "validation loss (nats)", "updates skipped", "bits of the parameters"],
    "fine_tuning": ["backbone", "new digits (%)", "old digits, old head (%)"],
    "equinox_sweep": ["learning rate", "best decay", "test loss (nats)"],
    "keras_lstm": ["epoch", "loss", "t_cur", "eta_t"],
}
PROGRAMS = [*TITLES, "digits", "maps", "sharded"]


@pytest.fixture
def load(monkeypatch):
    """Import an example as Python does that runs it: its folder comes first."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def check_picture_and_table(name, folder, out, err):
    assert all(title in out for title in TITLES[name])
    assert f"picture: {folder / name}.png" in out
    pixels = matplotlib.image.imread(folder / f"{name}.png")
    assert pixels[..., :3].std() > 0.05
    assert err == ""


def test_the_sharded_example_compares_with_one_device_and_draws(load, tmp_path, capsys):
    path = tmp_path / "sharded.png"
    load("sharded").compare(["zero1"], 2, path)
    out = capsys.readouterr().out
    assert re.search(r"zero1 +8 .* within \de-0\d of one device", out)
    assert matplotlib.image.imread(path)[..., :3].std() > 0.05


@pytest.mark.parametrize("name", [name for name in TITLES if name != "language_model"])
def test_an_example_ends_in_a_picture_and_a_table_and_is_quiet_in_a_log(load, name, tmp_path, capsys):
    load(name).main(["--quick", "--out", str(tmp_path / "new")])
    check_picture_and_table(name, tmp_path / "new", *capsys.readouterr())


def test_the_table_is_what_its_docstring_shows(load):
    assert doctest.testmod(load("terminal")) == (0, 1)


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def killed():
    raise Killed


def stop_at(monkeypatch, module, update, how):
    """Have `how` called in the middle of this launch's update: after the first optimizer's half of it."""
    step, save, calls = module.train_step, module.checkpoints.save, []

    def counted(*args):
        step(*args)
        calls.append(args)
        if len(calls) == 2 * update - 1:
            how()

    def saved(manager, *args):
        save(manager, *args)
        manager.wait_until_finished()  # else it would be chance what is on disk when the end comes

    monkeypatch.setattr(module, "train_step", counted)
    monkeypatch.setattr(module.checkpoints, "save", saved)


def result_of(text):
    """Return the report and the table, which hold the losses and a fingerprint of all parameters' bits."""
    result = text[text.index("parameter", text.index("the state's bytes are scalars")) :]
    assert len(set(re.findall(r" ([0-9a-f]{12})$", result, re.MULTILINE))) == 2
    return result.partition("picture")[0]


def check_refusals(module, capsys, folder, saved):
    """What is unfinished is neither thrown away nor taken for another run."""
    assert said(module, capsys, ["--quick", "--out", str(folder)]) == (
        f"{folder / 'language_model'} holds a run stopped after update {saved}: add --resume, or give another "
        "folder, --checkpoints FOLDER"
    )
    assert said(module, capsys, ["--out", str(folder), "--resume"]) == (
        f"{folder / 'language_model'} holds another run (updates 24, now 300): take the flags that it had, or give "
        "another folder, --checkpoints FOLDER"
    )


def test_a_run_stopped_twice_ends_with_the_bits_of_one_that_never_was(load, monkeypatch, tmp_path, capsys):
    """By Ctrl-C, which makes a checkpoint where it comes, and by a kill, between the records of every 4 updates."""
    module, arguments = load("language_model"), ["--quick", "--out", str(tmp_path)]
    module.main(["--quick", "--out", str(tmp_path / "whole")])
    out, err = capsys.readouterr()
    check_picture_and_table("language_model", tmp_path / "whole", out, err)
    whole = result_of(out), (tmp_path / "whole" / "language_model.png").read_bytes()

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patches:
        stop_at(patches, module, 10, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(SystemExit) as ended:
            module.main(arguments)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("stopped after update 10 of 24: go on with --resume\n")
    assert signal.getsignal(signal.SIGINT) is handler
    check_refusals(module, capsys, tmp_path, 10)

    with monkeypatch.context() as patches:
        stop_at(patches, module, 5, killed)  # in update 15
        with pytest.raises(Killed):
            module.main([*arguments, "--resume"])
    assert "at update 10 of 24" in capsys.readouterr().out
    check_refusals(module, capsys, tmp_path, 12)

    module.main([*arguments, "--resume"])
    out = capsys.readouterr().out
    assert "at update 12 of 24" in out
    assert (result_of(out), (tmp_path / "language_model.png").read_bytes()) == whole


def said(module, capsys, arguments):
    """Return the one line with which an example ends before it computes anything."""
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)
    out, err = capsys.readouterr()
    assert (out, ended.value.code, err.count("\n")) == ("", 2, 1)
    return err.partition(": ")[2].strip()


@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_flags_and_folders_are_told_in_one_line(load, name, tmp_path, capsys):
    module = load(name)
    assert said(module, capsys, ["--quik"]) == "unrecognized arguments: --quik (--help lists the flags)"
    (tmp_path / "file").touch()
    assert said(module, capsys, ["--out", str(tmp_path / "file" / "out")]) == (
        f"cannot write to {tmp_path / 'file' / 'out'} (Not a directory): give another folder, --out FOLDER"
    )


def test_a_number_of_processes_that_makes_no_sense_is_told_in_one_line(load, capsys):
    arguments = ["--processes", "0"]
    assert said(load("sharded"), capsys, arguments) == "--processes must be 1 or more, got 0 (--help lists the flags)"


def test_a_folder_without_permission_is_told_in_one_line(load, monkeypatch, tmp_path, capsys):
    def refuse(**arguments):
        raise PermissionError(13, "Permission denied")

    module = load("language_model")
    monkeypatch.setattr(module.terminal.tempfile, "TemporaryFile", refuse)
    assert said(module, capsys, ["--out", str(tmp_path)]) == (
        f"cannot write to {tmp_path} (Permission denied): give another folder, --out FOLDER"
    )


FOLDERS = {
    "empty": ({}, ["--resume"], "holds no run to go on with: leave out --resume, or give another folder"),
    "of somebody else": ({"notes.txt": "mine"}, [], "holds something else than this example's checkpoints: give anot"),
    "of another program": ({"run.json": '{"example": "other"}'}, [], "holds checkpoints of something else: give ano"),
    "a note of no use": ({"run.json": "[1]"}, ["--resume"], "holds checkpoints of something else: give another folder"),
    "a note cut off": ({"run.json": '{"exam'}, [], "holds checkpoints of something else: give another folder"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_checkpoints_that_are_not_this_runs_are_told_in_one_line(load, kind, tmp_path, capsys):
    files, arguments, message = FOLDERS[kind]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = ["--quick", "--out", str(tmp_path.parent), "--checkpoints", str(tmp_path), *arguments]
    assert message in said(load("language_model"), capsys, given)
    assert {file.name for file in tmp_path.iterdir()} == set(files)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("language_model", "flax"),
        ("fine_tuning", "keras"),
        ("equinox_sweep", "equinox"),
        ("keras_lstm", "keras"),
        ("digits", "optax"),
        ("maps", "matplotlib"),
        ("sharded", "matplotlib"),
    ],
)
def test_a_missing_extra_is_told_in_one_line(load, name, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert ended.value.code == 2
    assert capsys.readouterr().err.partition(": ")[2] == (
        f"{package} is not installed: run `{sys.executable} -m pip install '.[examples]'` in the folder that holds "
        "examples/\n"
    )
