"""Every code block of the documentation is run by a test or says why not; what is not run is at least read."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from google.protobuf import json_format, text_format
from ruamel.yaml import YAML
from tritonclient.grpc import model_config_pb2

from backend.commands.main import app
from backend.config.parameters import read_parameters
from backend.config.stock_config import check_stock_config
from backend.model_process.metrics import Metrics
from tests.deploy_files import selectors
from tests.docs.blocks import COMMANDS, ROOT, Block, blocks_of, complaint, pages, parse

BLOCKS = [block for page in pages() for block in blocks_of(page)]


def tagged(*tags: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.tag in tags]


def test_every_block_is_run_or_says_why_not() -> None:
    complaints = [said for said in map(complaint, BLOCKS) if said]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("block", tagged("python"))
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text, block.place)


@pytest.mark.parametrize("block", tagged(*COMMANDS))
def test_shell_is_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.commands, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", tagged(*COMMANDS))
def test_commands_and_their_options_exist(block: Block) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in command_lines(block):
        if words[0] == "make":
            assert targets.issuperset(word for word in words[1:] if "=" not in word and word[0] != "-")
        elif words[0].endswith("isochrone") and len(words) > 1:
            assert set(options(words)) <= options_of(words[1]), words


def command_lines(block: Block) -> list[list[str]]:
    """Each simple command's words, without the variables that are set for it."""
    found: list[list[str]] = []
    for line in block.commands.replace("\\\n", " ").splitlines():
        if not re.search(r"(^|[ /])(isochrone|make) ", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if re.fullmatch(r"[();<>|&]+", word):
                found += [words] if words else []
                words = []
            elif words or not re.fullmatch(r"\w+=.*", word):
                words.append(word)
    return found


def options(words: list[str]) -> list[str]:
    """Those of ours; behind -- they are tritonserver's."""
    ours = words[: words.index("--")] if "--" in words else words
    return [word.partition("=")[0] for word in ours if word.startswith("--")]


def options_of(command: str) -> set[str]:
    """Option names of `isochrone COMMAND`; `isochrone --version` is one of the program's own."""
    program: Any = typer.main.get_command(app)
    if command.startswith("--"):
        return {"--help", "--version"}
    return {"--help", *(name for option in program.commands[command].params for name in option.opts)}


@pytest.mark.parametrize("block", tagged("protobuf"))
def test_configuration_is_one_that_loads(block: Block) -> None:
    if block.kind != "skip":
        message = text_format.Parse(block.text, model_config_pb2.ModelConfig())
        config = json_format.MessageToDict(message, preserving_proto_field_name=True)
        read_parameters(config.get("parameters", {}))
        check_stock_config(config)


@pytest.mark.parametrize("block", tagged("json", "yaml", "toml"))
def test_data_parses(block: Block) -> None:
    if block.kind == "skip":
        return
    if block.tag == "json":
        json.loads(block.text)
    elif block.tag == "toml":
        tomllib.loads(block.text)
    else:
        assert list(YAML(typ="safe", pure=True).load_all(block.text))


@pytest.mark.parametrize("block", tagged("promql"))
def test_queries_ask_for_metrics_that_exist(block: Block) -> None:
    names = {selector.name for selector in selectors(block.text)}
    assert names
    assert names <= {series.name for series, _ in Metrics().values()}


PAGE = """
<!-- test: run -->
```bash
first
```

<!-- test: skip, needs a GPU -->

    ```console
    $ second
    output
    $ third
    ```
```python
print(1)
```
<!-- test: skip -->
```sh
fourth
```
```
fifth
```
"""


def test_commands_are_told_from_what_is_around_them() -> None:
    text = "A=1 make lint && B='x; y' bin/isochrone serve --http-port 1 \\\n -- --log-verbose=1  # more\nls make\n"
    assert command_lines(Block("page.md", 1, "bash", text, "run", "")) == [
        ["make", "lint"],
        ["bin/isochrone", "serve", "--http-port", "1", "--", "--log-verbose=1"],
    ]


def test_marks_and_complaints() -> None:
    first, second, third, fourth, fifth = parse("page.md", PAGE)
    assert (first.kind, first.text, complaint(first)) == ("run", "first\n", None)
    assert (second.kind, second.reason, complaint(second)) == ("skip", "needs a GPU", None)
    assert second.commands == "second\nthird\n"
    assert complaint(third) == (
        "page.md:14: python without a mark: <!-- test: run -->, or skip with a reason, on the line before"
    )
    assert "needs a reason" in str(complaint(fourth))
    assert complaint(fifth) == "page.md:21: the fence has no language; output is `text`"


def test_a_block_left_open_is_told() -> None:
    with pytest.raises(ValueError, match=r"page\.md:2: the block is not closed"):
        parse("page.md", "text\n```bash\nls\n")


def test_quoted_sentences_are_those_of_the_code() -> None:
    """Each line of output in the troubleshooting page, where … stands for what differs."""
    patterns = [pattern for path in (ROOT / "backend").rglob("*.py") for pattern in templates(path)]
    quoted = [
        line for block in blocks_of("docs/how-to/troubleshooting.md") if block.tag == "text" for line in lines(block)
    ]
    assert quoted
    assert [line for line in quoted if not any(pattern.fullmatch(line) for pattern in patterns)] == []


def lines(block: Block) -> list[str]:
    """Without the model's name before them, which whoever reports adds."""
    return [re.sub(r"^(isochrone: )?model '…': ", "", line) for line in block.text.splitlines()]


def templates(path: Path) -> Iterator[re.Pattern[str]]:
    """The messages in a module, with anything where a value goes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in node.values)
        else:
            continue
        pieces = [
            re.escape(piece) for piece in re.split(r"%s|%d|\{\w*\}", re.sub(r"^isochrone: model '%s': ", "", text))
        ]
        if sum(map(len, pieces)) > 20:  # else it would match anything
            yield re.compile(".*".join(pieces))
