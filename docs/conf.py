import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

project = "lpmppl"
author = "The lpmppl developers"
project_copyright = "The lpmppl developers"
release = version = version_of("lpmppl")

here = Path(__file__).parent
sys.path.insert(0, str(here))
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "mathml"]
exclude_patterns = ["_build", "*.py"]
html_theme = "furo"
html_title = f"lpmppl {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Docstrings put code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_dmath_allow_digits = False  # "$12.7 million, $8.8 million" is money
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
# Not "cache": what a notebook shows depends on the package as well as on its own cells.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

# The questions are scripts in examples/; here they are notebooks, executed with few people unless it is said otherwise.
os.environ.setdefault("LPMPPL_EXAMPLE_AGENTS", "20000")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Bars of progress, which would be widgets in a notebook, aren't missed on a page.
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
(here / "questions").mkdir(exist_ok=True)
for question in sorted((here.parent / "examples").glob("question_*.py")):
    shutil.copy2(question, here / "questions")


def let_go(_app, page):
    """Docstrings' nodes hold the document they were parsed in, and by it all that Sphinx knows: 3 MB for each page."""
    for node in page.findall():
        node.document = page


def setup(app):
    app.connect("doctree-read", let_go)
