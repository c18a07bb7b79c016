"""Copy third-party browser code out of installed Python packages into the site that is being built.

Nothing is downloaded and nothing of it is kept in this repository: MathJax comes from the wheel of
`sphinx-mathjax-offline`, and Vega, Vega-Lite and vega-embed from the bundle inside `vl-convert-python`.
"""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lee.charts.page import vega_bundle
from lee.errors import LeeError

MATHJAX_PACKAGE = "sphinx-mathjax-offline"
# The component, the web fonts it asks for, and the TeX extensions it loads on demand.
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")
VEGA_PACKAGE = "vl-convert-python"


class MissingPackageError(LeeError):
    """A package that carries browser code is not installed."""


def vendor_scripts(target: Path) -> None:
    """Put MathJax at `target/mathjax` and Vega at `target/vega/vega.js`, unless the same versions are there.

    Raises:
        MissingPackageError: If one of the two packages is not installed.
    """
    stamp = target / "versions.txt"
    versions = "".join(f"{name} {_version(name)}\n" for name in (MATHJAX_PACKAGE, VEGA_PACKAGE))
    if stamp.is_file() and stamp.read_text() == versions:
        return
    shutil.rmtree(target, ignore_errors=True)
    _copy_mathjax(target / "mathjax")
    _write_vega(target / "vega" / "vega.js")
    stamp.write_text(versions)


def _version(package: str) -> str:
    try:
        return distribution(package).version
    except PackageNotFoundError as error:
        message = f"Building the site needs the package {package!r}: install the extra `lee[book]`."
        raise MissingPackageError(message) from error


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
