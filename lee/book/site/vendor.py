"""Copy third-party browser code out of installed Python packages into the site that is being built.

Nothing is downloaded and nothing of it is kept in this repository: MathJax comes from the wheel of
`sphinx-mathjax-offline`, and Vega, Vega-Lite and vega-embed from the bundle inside `vl-convert-python`.
"""

import shutil
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from lee.charts.page import vega_bundle
from lee.errors import InputError

MATHJAX_PACKAGE = "sphinx-mathjax-offline"
# The component, the web fonts it asks for, and the TeX extensions it loads on demand.
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")
VEGA_PACKAGE = "vl-convert-python"


def vendor_scripts(target: Path) -> None:
    """Put MathJax at `target/mathjax` and Vega at `target/vega/vega.js`, unless the same versions are there."""
    stamp = target / "versions.txt"
    try:
        versions = "".join(f"{name} {version(name)}\n" for name in (MATHJAX_PACKAGE, VEGA_PACKAGE))
    except PackageNotFoundError as error:
        raise InputError(f"Building the site needs the package {error.name!r}, of the extra `book`.") from error
    if stamp.is_file() and stamp.read_text() == versions:
        return
    shutil.rmtree(target, ignore_errors=True)
    _copy_mathjax(target / "mathjax")
    _write_vega(target / "vega" / "vega.js")
    stamp.write_text(versions)


def _copy_mathjax(target: Path) -> None:
    source = Path(str(distribution(MATHJAX_PACKAGE).locate_file("sphinx-mathjax-offline/static/mathjax")))
    for part in MATHJAX_PARTS:
        origin, copy = source / part, target / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy)
        else:
            shutil.copyfile(origin, copy)


def _write_vega(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # The bundle declares constants at top level with one-letter names: keep them out of the page's scope.
    target.write_text(f"(function(){{{vega_bundle()}}})();\n", encoding="utf-8")
