"""Equations become MathML when the site is built, or the build says which page has one that can't."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lpmppl.errors

DOCS = Path(lpmppl.errors.__file__).parents[1] / "docs"
for module in ("sphinx", "math_core", "myst_parser"):
    pytest.importorskip(module, reason="what builds the docs isn't installed: pip install -e .[docs]")
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the docs aren't beside the package")

CONF = f"""
import sys
sys.path.insert(0, {str(DOCS)!r})
extensions = ["myst_parser", "mathml"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
html_theme = "basic"
"""
PAGE = r"""
# Equations

Inline $\frac12 < x$, and

$$\mathbb E \sum_{i=1}^N x_i$$ (mean)

as (eq. {eq}`mean`) says.

```{eval-rst}
.. math::

   a &= b \\
   c &= d
```
"""


def build(folder, page):
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text(page)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "-b", "html", ".", "html"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_inline_displayed_numbered_and_aligned(tmp_path):
    done = build(tmp_path, PAGE)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/index.html").read_text()
    inline, mean, aligned = re.findall(r"<math.*?</math>", page, re.S)
    assert "<mfrac><mn>1</mn><mn>2</mn></mfrac><mo>&lt;</mo>" in inline and "display" not in inline
    assert "<munderover><mo>∑</mo>" in mean and "𝔼" in mean and 'display="block"' in mean
    assert aligned.count("<mtr>") == 2 and aligned.count("<mtd") == 4
    assert re.search(r'<span class="eqno">\(1\).*?</span>', page, re.S)
    assert re.search(r'<a class="reference internal" href="#equation-mean">\(?1\)?</a>', page)
    assert not re.search(r"<script[^>]*(mathjax|//)", page, re.I)


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"\frac{a"])
def test_a_formula_that_cannot_be_drawn_fails_the_build_and_is_named(tmp_path, latex):
    done = build(tmp_path, f"# Equations\n\nHere ${latex}$ it is.\n")
    assert done.returncode != 0
    assert "index.md:3" in done.stderr and repr(latex) in done.stderr
