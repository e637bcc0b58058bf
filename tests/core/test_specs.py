"""Declarations of plugins: read without importing them, and loud about what is wrong."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.checkout import ROOT
from workflow_scripts.core import plugins, specs
from workflow_scripts.core.errors import OODError

EVERY = [(package, name) for package in specs.KINDS for name in plugins.names(package)]


@pytest.mark.parametrize(("package", "name"), EVERY, ids=[".".join(pair) for pair in EVERY])
def test_what_is_read_is_what_the_module_declares(package, name):
    assert plugins.spec(package, name) == plugins.load(package, name).SPEC
    assert type(plugins.spec(package, name)) is specs.KINDS[package]


def test_all_are_read_without_torch_numpy_or_pydantic():
    code = ("import sys; from workflow_scripts.core import plugins, specs\n"
            "for package in specs.KINDS:\n    for name in plugins.names(package): plugins.spec(package, name)\n"
            "bad = {'torch', 'numpy', 'pydantic'} & set(sys.modules); assert not bad, bad")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("kind", "text", "message"), [
    (specs.MethodSpec, 'SPEC = MethodSpec(outlier="always")',
     "x.py: MethodSpec has no field 'outlier'; did you mean 'outliers'? Fields: at_most, background, "),
    (specs.MethodSpec, 'OUTLIERS = "always"',
     "x.py: OUTLIERS is a field of the declaration; in its place write SPEC = MethodSpec(outliers='always') and above "
     "from workflow_scripts.core.specs import MethodSpec"),
    (specs.MethodSpec, "SPEC = MethodSpec(background='yes')",
     "x.py: MethodSpec.background: expected True or False, found 'yes'"),
    (specs.MethodSpec, "SPEC = MethodSpec(defects=('npos.B1',))",
     "x.py: MethodSpec.defects: expected a dictionary of a text -> a text, found ('npos.B1',)"),
    (specs.MethodSpec, "SPEC = MethodSpec(at_most=(('k', 'filter'),))",
     "x.py: MethodSpec.at_most: expected (a text, a text, a text, a text), found ('k', 'filter')"),
    (specs.MethodSpec, "SPEC = MethodSpec('always')", "expected SPEC = MethodSpec() with named fields"),
    (specs.MethodSpec, "SPEC = ScoreSpec(needs={'logits'})", "expected SPEC = MethodSpec() with named fields, found"),
    (specs.ScoreSpec, "SPEC = ScoreSpec()", "x.py: ScoreSpec lacks the field needs; expected e.g. SPEC = ScoreSpec("),
    (specs.ScoreSpec, "", "x.py: it defines no SPEC; expected a line such as SPEC = ScoreSpec("),
    (specs.ScoreSpec, "SPEC = ScoreSpec(needs={'logit'})",
     "x.py: ScoreSpec.needs: 'logit' is not known; did you mean 'logits'?"),
    (specs.ScoreSpec, "SPEC = ScoreSpec(needs='logits')",
     "x.py: ScoreSpec.needs: expected a set such as {'logits', 'features'},"),
    (specs.ScoreSpec, "SPEC = ScoreSpec(needs={*KINDS})", "ScoreSpec.needs must be written out as a literal"),
    (specs.ScoreSpec, "SPEC = ScoreSpec(needs={'logits'}, tune='K')", "ScoreSpec.tune: expected a tuple, each a text"),
    (specs.PictureSpec, "SPEC = PictureSpec(needs={'metrics'}, scope='al')",
     "x.py: PictureSpec.scope: 'al' is not known; did"),
])
def test_a_wrong_declaration_is_one_line(kind, text, message):
    with pytest.raises(OODError) as error:
        specs.read(ast.parse(text), kind, "x.py")
    assert message in str(error.value) and str(error.value).startswith("x.py: ") and "\n" not in str(error.value)


def test_sets_and_lists_stand_for_frozen_sets_and_tuples():
    tree = ast.parse("SPEC = specs.ScoreSpec(needs=['logits', 'head'], tune=['K'])")
    assert specs.read(tree, specs.ScoreSpec, "x.py") == specs.ScoreSpec(needs={"logits", "head"}, tune=("K",))
