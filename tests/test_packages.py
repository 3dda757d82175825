"""What is built: a wheel that runs alone with its configurations, an sdist, and nothing of tests or figures in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import seqcl
from seqcl.cli.main import COMMANDS, GROUPS, main
from seqcl.config import shipped
from seqcl.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist, from a copy of what a checkout holds."""
    pytest.importorskip("build", reason="python -m build")
    pytest.importorskip("setuptools", reason="the build backend")
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    if "does not satisfy" in done.stdout + done.stderr or "Missing dependencies" in done.stdout + done.stderr:
        pytest.skip("setuptools is older than the build asks for")
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.mark.once
def test_no_tests_or_figures_are_built_and_every_configuration_is(built):
    wheel, source = built
    names = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(source) as archive:
        packed = [name.partition("/")[2] for name in archive.getnames()]
    for own in (names, packed):
        assert not [
            name
            for name in own
            if re.search(r"(^|/)(tests|benchmarks/.*\.py|docs|examples|measured)(/|$)|\.(png|svg|ipynb)$", name)
        ]
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "configs").rglob("*.yaml")]
    assert {f"seqcl/{name}" for name in files} <= set(names) and set(files) <= set(packed)
    code = {file.relative_to(ROOT).as_posix() for file in (ROOT / "seqcl").rglob("*.py")}
    assert code <= set(names) and code <= set(packed)


@pytest.mark.once
def test_twine_takes_both(built):
    pytest.importorskip("twine", reason="python -m twine check")
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.once
def test_the_wheel_alone_trains_from_an_empty_folder_and_finds_its_configurations(built, tmp_path):
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = """
import seqcl
from seqcl.cli.main import main
print(seqcl.__file__)
assert main(["train", "--config", "beauty-cl4rec", "--print_config"]) == 0
small = ["--encoder.dim", "8", "--train.epochs", "1", "--eval.exclude_seen", "false", "--train.batch_size", "1024", "--data.windows", "last"]
assert main(["train", "--model", "SASRec", "--dataset", "markov", *small]) == 0
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "SEQCL_DATA": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "empty", env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        done.stdout.startswith(str(tmp_path / "site"))
        and "model: CL4Rec" in done.stdout
        and "dataset: Beauty" in done.stdout
    )
    assert len(list((tmp_path / "empty" / "runs").glob("SASRec-markov-*/metrics.json"))) == 1


def test_the_citation_and_the_changelog_name_this_version():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert about["version"] == seqcl.__version__ and {"cff-version", "message", "title", "authors"} <= set(about)
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].startswith(f"[{seqcl.__version__}] - ")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - (Unreleased|\d{4}-\d\d-\d\d)", heading) for heading in headings)


def test_a_configuration_is_found_by_its_name_and_a_file_goes_before_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "papers/duorec", "--print_config"]) == 0
    assert "model: DuoRec" in capsys.readouterr().out
    assert shipped.located("beauty-cl4rec") == ROOT / "configs" / "beauty-cl4rec.yaml"
    (tmp_path / "beauty-cl4rec").write_text("model: SASRec\n")
    assert shipped.located("beauty-cl4rec") == Path("beauty-cl4rec")
    with pytest.raises(UserError, match=r"--config beauty-cl4rce: no such file, and .*did you mean beauty-cl4rec"):
        shipped.located("beauty-cl4rce")
    assert main(["train", "--config", "none.yaml"]) == 2
    assert "--config none.yaml: No such file" in capsys.readouterr().err


def test_help_shows_each_command_once_in_its_group_within_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.splitlines()
    for title, names in GROUPS.items():
        place = shown.index(f"{title}:")
        for name in names:
            assert [line.startswith(f"  {name} ") for line in shown].count(True) == 1
            assert next(n for n, line in enumerate(shown) if line.startswith(f"  {name} ")) > place
    for words in (["--help"], *([name, "--help"] for name in COMMANDS if name != "tune")):
        with pytest.raises(SystemExit):
            main(words)
        long = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80]
        assert not long, words


def test_a_message_on_a_terminal_is_folded_between_words(monkeypatch, capsys):
    from seqcl.cli import main as module

    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--encoder.dmi", "3"]) == 2
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1 and len(plain) > 80  # for a pipe, one line
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    folded = module.on_terminal(plain.strip())
    assert max(map(len, folded.splitlines())) <= 80 and " ".join(folded.split()) == " ".join(plain.split())


def test_a_shell_completes_commands_options_and_names(tmp_path, capsys):
    pytest.importorskip("shtab", reason="pip install 'seqcl[completion]'")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "--warm_start", "--encoder.dim", "--config", "CL4Rec", "--items-file"):
        assert word in script
    if not Path("/bin/bash").exists():
        return
    (tmp_path / "seqcl").write_text(script)
    (tmp_path / "moreruns").mkdir()
    ask = """source ./seqcl; f=$(complete -p seqcl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    COMP_WORDS=(seqcl train --model CL4); COMP_CWORD=3; $f seqcl CL4 --model; echo "${COMPREPLY[*]}"
    COMP_WORDS=(seqcl distill some --model CL4); COMP_CWORD=4; COMPREPLY=(); $f seqcl CL4 --model; echo "${COMPREPLY[*]}"
    COMP_WORDS=(seqcl distill some --distil.al); COMP_CWORD=3; COMPREPLY=(); $f seqcl --distil.al some; echo "${COMPREPLY[*]}"
    COMP_WORDS=(seqcl distill some more); COMP_CWORD=3; COMPREPLY=(); $f seqcl more some; echo "${COMPREPLY[*]}"
    COMP_WORDS=(seqcl rec); COMP_CWORD=1; COMPREPLY=(); $f seqcl rec seqcl; echo "${COMPREPLY[*]}" """
    done = subprocess.run(["/bin/bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path)
    found = ["CL4Rec CL4SRec", "CL4Rec CL4SRec", "--distil.alpha", "moreruns", "recommend"]
    assert done.stdout.splitlines() == found


def test_without_shtab_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("seqcl.cli.completion.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'seqcl[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recommend", "run", "--items", "5", "--alowed", "x"], "'--alowed': did you mean --allowed"),
        (["serve", "run", "--prot", "1"], "'--prot': did you mean --port"),
        (["data", "stats", "log.csv", "--colums", "x"], "'--colums': did you mean --columns"),
        (["evaluate", "run", "--slice"], "'--slice': did you mean --slices"),
        (["compare", "a", "b", "--basline", "a"], "'--basline': did you mean --baseline"),
    ],
)
def test_a_misspelt_or_shortened_option_of_any_command_names_the_nearest(words, said, capsys):
    assert main(words) == 2
    assert f"unknown option {said}" in capsys.readouterr().err


def test_a_folder_with_the_name_of_a_configuration_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "beauty-cl4rec").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shipped.located("beauty-cl4rec").is_file()
