"""README and the pages: generated tables are fresh, links and names are right, README is short and does what it says."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from docs import figures, generate, marked, parts, tables_of_contrast, tables_of_models, tables_of_results
from seqcl.cli.main import main
from seqcl.evaluation import holm
from seqcl.models import MODELS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = re.compile(r"NAME|\b[AB]\.yaml")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its generated tables, footnotes and blocks of code."""
    text = generate.MARKED.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"^\[\^\w+\]:.*(?:\n    .*)*", "", text, flags=re.MULTILINE)
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_no_generated_page_is_stale():
    found = [str(page.relative_to(ROOT)) for page in generate.stale(ROOT)]
    assert not found, f"{', '.join(found)}: run python docs/generate.py"


def test_a_stale_page_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    text = README.read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert not generate.stale(tmp_path)
    (tmp_path / "README.md").write_text(text.replace("| .0581 ", "| .0681 "), encoding="utf-8")
    assert generate.stale(tmp_path) == {tmp_path / "README.md": text}


def test_every_table_stands_in_a_page_and_every_marker_names_one():
    texts = [page.read_text(encoding="utf-8") for page in generate.pages()]
    named = [found["name"] for text in texts for found in generate.MARKED.finditer(text)]
    assert sorted(named) == sorted(generate.TABLES)
    assert sum(text.count("<!-- generated:") for text in texts) == len(named)


def test_the_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 140 and not line.startswith("|")] == []


@every_page
def test_no_commit_is_named_in_prose(page):
    hashes = re.findall(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b", prose(page))
    assert not hashes


@every_page
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if heading:
            lines = file.read_text(encoding="utf-8").splitlines()
            assert heading in {marked.anchor(line.lstrip("# ")) for line in lines if line.startswith("#")}, target


@every_page
def test_named_files_are_there(page):
    text = prose(page) if page.name == "CONTRIBUTING.md" else page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.])(?:configs|seqcl|tests|benchmarks|docs)/[\w./-]*\.(?:yaml|py|md)\b", text):
        assert PLACEHOLDERS.search(name) or (ROOT / name).exists(), name


def tried() -> set[str]:
    """The options of the plugin with what was tried; to load it would register its parts for all tests."""
    tree = ast.parse((ROOT / "benchmarks" / "remembering.py").read_text(encoding="utf-8"))
    sections = {"RememberingTapRec": "encoder", "TriedNextItem": "next_item"}
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef) and one.name in sections]
    makers = [(sections[one.name], part) for one in classes for part in one.body if isinstance(part, ast.FunctionDef)]
    return {f"{section}.{word.arg}" for section, part in makers for word in part.args.kwonlyargs}


@every_page
def test_named_options_are_there(page):
    known = {f"{section}.{option.name}" for section, one in parts.shared().items() for option in parts.options(one)}
    for section, found in parts.components().items():
        known |= {f"{section}.{option.name}" for one in found.values() for option in parts.options(one)}
    text = re.sub(r"seqcl(?: |-)data[^`]*|recbole:\w+ .*", "", page.read_text(encoding="utf-8"))
    foreign = {"encoder.hidden_size", "encoder.nv", "objective.margin"}  # RecBole's, and that of extend.md's own class
    known |= tried()
    named = set(re.findall(r"--([a-z_]+\.[a-z_]+)\b", text)) - foreign
    assert named <= known


@every_page
def test_commands_that_train_resolve(page, capsys):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for indented, quoted in re.findall(r"^ {4}(python run\.py [^#\n]+)|`(python run\.py [^`]+)`", text, re.MULTILINE):
        command = indented or quoted
        words = shlex.split(command)[2:]
        left_out = any(word in ("--resume", "--help", "--recbole-config", "--plugin") for word in words)
        if left_out or "recbole:" in command or PLACEHOLDERS.search(command):
            continue
        assert main(["train", *words, "--print_config"]) == 0, command
    capsys.readouterr()


def blocks(page: Path) -> list[str]:
    """The Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_and_of_runs_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README)
    users, items = [f"u{row}" for row in range(1, 31)], [f"B{row:03}" for row in range(1, 11)]
    rows = [(user, items[(place + step) % 10], step) for place, user in enumerate(users) for step in range(6)]
    world = {"frame": pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])}
    short = code.replace('{"epochs": 20}', '{"epochs": 1}')
    assert short != code
    exec(compile(short, "README.md", "exec"), world)
    assert "leave_one_out" in capsys.readouterr().out
    replaced = {"user=17": 'user="u1"', "[50, 181, 258]": '["B001"]'}
    replaced["runs/CL4Rec-ml-100k-20261122-101500"] = str(world["run"].folder)
    replaced['"ml-100k", model="CL4Rec"'] = '"markov", model="SASRec", train={"epochs": 1}'
    for code in blocks(ROOT / "docs" / "runs.md"):
        for ours, theirs in replaced.items():
            code = code.replace(ours, theirs)
        exec(compile(code, "docs/runs.md", "exec"), {})
    assert (tmp_path / "bundle" / "manifest.json").exists()


def test_every_model_is_in_the_tables_with_what_it_names():
    told = dict(text.split("**: ") for text in tables_of_models.readme_models().split("\n\n"))
    named = {kind: " ".join(models.split()).rstrip(".").split(", ") for kind, models in told.items()}
    told_names = [model.partition(" ")[0] for models in named.values() for model in models]
    assert sorted(told_names) == sorted(parts.recipes())
    assert "CL4Rec (alias CL4SRec) " in told["**With a contrastive term"] and "SASRec" in told["**Other trained models"]
    unmeasured = [name for name in parts.recipes() if tables_of_models.best(name) == tables_of_models.UNMEASURED]
    assert [name.partition(" ")[0] for name in named.get("**Not yet measured", [])] == unmeasured
    rows = rows_of(tables_of_models.models())
    names = [re.match(r"\[(\w+)\]", row[0])[1] for row in rows]
    aliases = {alias for row in rows for alias in re.findall(r"alias (\w+)", row[0])}
    assert {*names, *aliases} == set(MODELS) and len(names) == len(set(MODELS.values()))
    for row in rows:
        assert row[1] and row[2], row[0]
        assert (
            "arXiv" in row[3]
            or "doi.org/10." in row[3]
            or row[0].startswith(("[ItemKNN]", "[MarginRec]", "[Popularity]"))
        ), row[0]


def test_every_component_has_its_options_with_help():
    for section, component in parts.shared().items():
        assert all(option.meaning for option in parts.options(component)), section
    for section, found in parts.components().items():
        for name, component in found.items():
            assert parts.first_sentence(component), name
            for option in parts.options(component):
                assert option.meaning, f"{section}.{option.name} of {name}"


def test_p_is_corrected_as_holm_does():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert [figures.chance(p) for p in (0.0004, 0.0061, 0.074, 0.4, 1.0)] == ["< .001", ".006", ".07", ".40", "1"]


def test_the_map_of_contrast_counts_models_with_a_term_and_names_those_that_are_told_from_chance():
    told = {row[0]: row[1:] for row in rows_of(tables_of_contrast.contrast_by_data())}
    plain = {"sasrec", "bsarec", "taprec", "ensemble", "blend", "blend-ensemble", "distil", "directau"}
    names = {name.removeprefix("beauty-") for name, runs in figures.kept_of("beauty").items() if len(runs) > 2} - plain
    assert int(told["Beauty"][0]) == len(names) > 15
    ahead = {name.rpartition(" ")[0] for name in told["Beauty"][1].split(", ")}
    rows = {row.label: row for row in figures.rows("beauty")}
    assert {"CL4Rec", "SupConRec"} <= ahead and all(rows[name].holm < 0.05 for name in ahead)
    assert told["Sports_and_Outdoors"][2].startswith("MCLRec −")
    assert "TwoTower without contrast" not in tables_of_contrast.contrast_by_data()


def test_every_kept_run_and_every_head_has_a_row():
    for benchmark, name in (("beauty", "results on Beauty"), ("sports", "results on Sports")):
        table = generate.TABLES[name]() + tables_of_results.results(benchmark, few=True)
        kept = figures.kept_of(benchmark)
        assert kept and all(f"--only {name}`" in table for name in kept)
    assert len(list(figures.MEASURED.rglob("*.parquet"))) == sum(
        len(runs) for benchmark in figures.benchmarks() for runs in figures.kept_of(benchmark).values()
    )
    files = sorted((ROOT / "configs").glob("*.yaml"))
    own = [file.stem for file in files if "# Measured: not yet" not in file.read_text(encoding="utf-8")]
    assert {head.file for head in figures.heads() if "/" not in head.file} == set(own)
    tables = "".join(build() for build in generate.TABLES.values())
    assert all(re.search(rf"configs/{name}\.yaml|--only {name}`", tables) for name in own)
