"""Every mistake in a space is found when it is read, and said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hssl_search.errors import UserError
from hssl_search.spaces import Space


def said(folder: Path, text: str) -> str:
    path = folder / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        Space.read(str(path))
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def said_of(folder: Path, lines: str) -> str:
    """Return what is said of these parameters, given inside braces' notation."""
    return said(folder, f"parameters: {{{lines}}}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paramters: {family: mlp}", ": unknown key 'paramters'; did you mean 'parameters'?"),
        ("description: x", ": parameters is missing; add it."),
        ("parameters: {}", ": parameters.family is missing; add e.g. `family: convnext`."),
        ("parameters: [family]", ": parameters is ['family'], but should be a valid dictionary."),
        (
            "parameters: {family: convnext\n",
            " is not valid YAML: expected ',' or '}', but got '<stream end>' (line 2, column 1).",
        ),
    ],
)
def test_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    assert said(tmp_path, text) == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "family: convnxt",
            ": unknown family 'convnxt' in parameters.family; did you mean 'convnext'",
        ),
        (
            "family: {choice: [mlp, resnt]}",
            ": unknown family 'resnt' in parameters.family; did you mean 'resnet'",
        ),
        (
            "family: noise",
            ": parameters.family 'noise' is a control, which every search runs anyway; remove it.",
        ),
        (
            "family: {choice: [mlp, identity]}",
            ": parameters.family 'identity' is a control, which every search runs anyway; remove "
            "it.",
        ),
        (
            "family: [mlp, resnet]",
            ": parameters.family is a list; for one of several values write {choice: ['mlp', "
            "'resnet']}.",
        ),
        (
            "family: {int: [1, 2]}",
            ": parameters.family is a range; write a name or {choice: [NAME, NAME]}.",
        ),
        ("family: {choice: [mlp, mlp]}", ": parameters.family has 'mlp' twice; remove one."),
        (
            "family: {choice: [mlp], families: [mlp]}",
            ": unknown key 'families' in parameters.family; choose one of choice, float, int, "
            "log, step, value.",
        ),
    ],
)
def test_of_the_family(tmp_path: Path, lines: str, message: str) -> None:
    assert said_of(tmp_path, lines).startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("kernal_size: 3", ": unknown key 'kernal_size' in parameters; did you mean 'kernel_size'"),
        ("format: hssl-head/1", ": unknown key 'format' in parameters; "),
        (
            "depth: {choise: [1, 2]}",
            ": unknown key 'choise' in parameters.depth; did you mean 'choice'?",
        ),
        ("depth:", ": parameters.depth is empty; write a value or one of "),
        (
            "depth: [1, 2]",
            ": parameters.depth is a list; for one of several values write {choice: [1, 2]}.",
        ),
        (
            "depth: {}",
            ": parameters.depth has no domain; give exactly one of value, choice, int, float, log.",
        ),
        (
            "depth: {int: [1, 2], choice: [3]}",
            ": parameters.depth has choice and int; give exactly one of ",
        ),
        (
            "depth: {choice: []}",
            ": parameters.depth: choice is []; write a list, e.g. {choice: [2, 4, 8]}.",
        ),
        ("depth: {choice: [1, 1]}", ": parameters.depth has 1 twice; remove one."),
        ("width_ratio: {choice: [1, 1.0]}", ": parameters.width_ratio has 1.0 twice; remove one."),
        (
            "depth: {choice: [1, [2]]}",
            ": parameters.depth is a list; for one of several values write {choice: [2]}.",
        ),
        (
            "depth: {int: [4, 1]}",
            ": parameters.depth: int is [4, 1]; write two numbers, the lower one first, e.g. "
            "{int: [1, 4]}.",
        ),
        ("depth: {int: [1, 2, 3]}", ": parameters.depth: int is [1, 2, 3]; write two numbers, "),
        ("depth: {int: 4}", ": parameters.depth: int is 4; write two numbers, "),
        ("depth: {int: [1.0, 2.0]}", ": parameters.depth: int is [1.0, 2.0]; write two numbers, "),
        ("depth: {int: [true, 3]}", ": parameters.depth: int is [True, 3]; write two numbers, "),
        (
            "depth: {int: [1, 4], step: 2}",
            ": parameters.depth: step is 2; write a whole number that leads from the lower end "
            "exactly ",
        ),
        ("depth: {int: [1, 4], step: 0}", ": parameters.depth: step is 0; "),
        (
            "depth: {choice: [1, 4], step: 3}",
            ": parameters.depth has a step, which only int takes; remove it.",
        ),
        (
            "width_ratio: {log: [0, 1]}",
            ": parameters.width_ratio: log begins at 0, where there is no logarithm; begin above "
            "0.",
        ),
    ],
)
def test_of_the_notation(tmp_path: Path, lines: str, message: str) -> None:
    assert said_of(tmp_path, f"family: convnext, {lines}").startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("depth: 0", ": parameters.depth is 0, but should be greater than or equal to 1."),
        (
            "depth: {int: [0, 2]}",
            ": parameters.depth is 0, but should be greater than or equal to 1.",
        ),
        (
            "depth: {int: [1, 1000000000]}",
            ": parameters.depth is 1000000000, but should be less than or equal to 64.",
        ),
        ("depth: true", ": parameters.depth is True, but should be a valid integer."),
        ("depth: two", ": parameters.depth is 'two', but should be a valid integer."),
        ("depth: {float: [1, 4]}", ": parameters.depth is 1.0, but should be a valid integer."),
        ("depth: {log: [1, 4]}", ": parameters.depth is 1.0, but should be a valid integer."),
        ("kernel_size: 4", ": parameters.kernel_size is 4: kernel_size 4 is even; use 3 or 5."),
        (
            "kernel_size: {choice: [3, 4]}",
            ": parameters.kernel_size is 4: kernel_size 4 is even; use 3 or 5.",
        ),
        (
            "kernel_size: {int: [3, 9]}",
            ": parameters.kernel_size is 4: kernel_size 4 is even; use 3 or 5.",
        ),
        (
            "width_ratio: {log: [0.5, 9]}",
            ": parameters.width_ratio is 9.0, but should be less than or equal to 8.",
        ),
        (
            "width_ratio: .nan",
            ": parameters.width_ratio is nan, but should be less than or equal to 8.",
        ),
        ("first_shortcut: 1", ": parameters.first_shortcut is 1, but should be a valid boolean."),
        (
            "first_shortcut: {int: [0, 1]}",
            ": parameters.first_shortcut is 0, but should be a valid boolean.",
        ),
        (
            "attention_heads: 4",
            ": no family of this space (convnext) reads parameters.attention_heads; remove it.",
        ),
    ],
)
def test_of_values_that_no_head_may_have(tmp_path: Path, lines: str, message: str) -> None:
    assert said_of(tmp_path, f"family: convnext, {lines}") == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "{value: 3, families: [resnt]}",
            ": parameters.kernel_size: 'resnt' is no family of this space that reads the "
            "parameter; did you mean 'resnet'?",
        ),
        (
            "{value: 3, families: [mlp]}",
            ": parameters.kernel_size: 'mlp' is no family of this space that reads the parameter; "
            "choose one of convnext, resnet.",
        ),
        (
            "{value: 3, families: resnet}",
            ": parameters.kernel_size: families is 'resnet'; write a list of names, e.g. "
            "[convnext, resnet].",
        ),
        (
            "{value: 3, families: []}",
            ": parameters.kernel_size: families is []; write a list of names, e.g. [convnext, "
            "resnet].",
        ),
        (
            "{value: 3, families: [resnet, resnet]}",
            ": parameters.kernel_size, families has 'resnet' twice; remove one.",
        ),
        (
            "[{value: 3, families: [resnet]}, {value: 5, families: [resnet]}]",
            ": parameters.kernel_size, families has 'resnet' twice; remove one.",
        ),
        (
            "[{value: 3}, {value: 5}]",
            ": parameters.kernel_size has a domain that no family is left for (convnext, resnet "
            "read it); "
            "give each its own `families`.",
        ),
        (
            "[{value: 3, families: [resnet, convnext]}, 5]",
            ": parameters.kernel_size has a domain that no family is left for (convnext, resnet "
            "read it); give each its own `families`.",
        ),
        (
            "[{value: 4, families: [resnet]}, 5]",
            ": parameters.kernel_size is 4: kernel_size 4 is even; use 3 or 5.",
        ),
    ],
)
def test_of_domains_for_families(tmp_path: Path, lines: str, message: str) -> None:
    assert (
        said_of(tmp_path, f"family: {{choice: [convnext, resnet, mlp]}}, kernel_size: {lines}")
        == message
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "family: convnext, blocks: mlp",
            ": no family of this space (convnext) reads parameters.blocks; remove it.",
        ),
        (
            "family: hybrid, depth: 2",
            ": no family of this space (hybrid) reads parameters.depth; remove it.",
        ),
        (
            "family: hybrid, blocks: [mlp, swin]",
            ": parameters.blocks is a list; in a space, join the blocks of a hybrid by +: "
            "mlp+swin.",
        ),
        (
            "family: hybrid, blocks: {choice: [mlp+swin, mlp+swn]}",
            ": parameters.blocks is 'mlp+swn': unknown block 'swn' in blocks; did you mean 'swin'?",
        ),
        (
            "family: hybrid, blocks: noise+mlp",
            ": parameters.blocks is 'noise+mlp': control 'noise' in blocks; choose one of ",
        ),
        (
            "family: hybrid, blocks: {int: [1, 2]}",
            ": parameters.blocks is 1: blocks is 1; write names of families, joined by + or as a "
            "list.",
        ),
        (
            "family: hybrid, blocks: {choice: [mlp+swin, mlp + swin]}",
            ": parameters.blocks has 'mlp+swin' twice; remove one.",
        ),
        (
            "family: hybrid, blocks: {choice: [mlp, mlp+swin]}, kernel_size: 3",
            ": no family of this space (hybrid) reads parameters.kernel_size; remove it.",
        ),
        (
            "family: hybrid, blocks: {choice: [mlp, resnet]}, kernel_size: 4",
            ": parameters.kernel_size is 4: kernel_size 4 is even; ",
        ),
        (
            "family: convnext, tap: {int: [0, 4]}",
            ": parameters.tap is 4, but should be less than or equal to 3.",
        ),
        (
            "family: convnext, positions: true",
            ": no family of this space (convnext) reads parameters.positions; remove it.",
        ),
    ],
)
def test_of_hybrids_and_of_what_only_some_families_read(
    tmp_path: Path, lines: str, message: str
) -> None:
    assert said_of(tmp_path, lines).startswith(message)


def test_a_plain_form_is_named_by_its_space() -> None:
    with pytest.raises(
        UserError,
        match=r"^search space 'mine': unknown key 'dpth' in parameters; did you mean 'depth'\?$",
    ):
        Space.from_plain({"parameters": {"family": "mlp", "dpth": 1}}, "mine")
