"""Sphinx extension of the book: a site that asks no other host for anything, with live charts.

Name it as `lee.book.site` among the `extra_extensions` of `_config.yml`. It copies MathJax and Vega out of
installed Python packages while building (`lee.book.site.vendor`), draws the outputs of :mod:`lee.charts` as
numbered figures (`lee.book.site.figures`), shows definitions over links to the glossary (`lee.book.site.hover`), and ranks
what Sphinx's search finds (`lee.book.site.search`).
It adds the directives `lee-api` (`lee.book.site.api`), `lee-status` (`lee.book.site.status`), `lee-scoreboard`
(`lee.book.site.scoreboard`) and `lee-chapters`, with the reading time under each title (`lee.book.site.reading`).
"""

from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from lee import __version__
from lee.book.site.api import ApiDirective
from lee.book.site.hover import tell_definitions
from lee.book.site.reading import ChaptersDirective, make_live, tell_reading_time
from lee.book.site.scoreboard import ScoreboardDirective
from lee.book.site.search import rank_pages
from lee.book.site.status import StatusDirective
from lee.book.site.vendor import vendor_scripts

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

STATIC = Path(__file__).parent / "static"
VENDOR = "vendor"


def keep_requests_at_home(app: "Sphinx", config: "Config") -> None:
    """Point every script that the theme and its extensions load at this site's own copy."""
    config.mathjax_path = f"{VENDOR}/mathjax/tex-chtml.js"
    config.mathjax_options = {"defer": "defer"}
    # The menu would load parts of MathJax that are not copied; assistive MathML stays on without it.
    config.mathjax3_config = {"options": {"enableMenu": False}}
    config.nb_ipywidgets_js = {}
    config.html_context.setdefault("default_mode", "auto")
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)  # the theme would fail without an address
    _silence_thebe(app)


def _silence_thebe(app: "Sphinx") -> None:
    # sphinx-thebe has no off switch and names a CDN on every page; Jupyter Book always loads it. Its style
    # sheet stays, as every page asks for it.
    def wanted(handler: Any) -> bool:
        return handler.__module__ != "sphinx_thebe" or handler.__name__ == "st_static_path"

    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if wanted(one.handler)]


def add_static_files(app: "Sphinx") -> None:
    """Copy the vendored scripts beside the doctrees, and put them and our own files on the static path."""
    if app.builder.format != "html":
        return
    static = Path(app.doctreedir).parent / "lee-static"
    vendor_scripts(static / VENDOR)
    app.config.html_static_path += [str(static), str(STATIC)]


def resolve_alias(app: "Sphinx", env: Any, node: Any, contnode: Any) -> Any:
    """Find what the API pages document under one name and a docstring or an annotation calls by another.

    `lee.Sampler` and `lee.geometry.sampling.Sampler` are shown as `lee.geometry.Sampler`.
    """
    target = node.get("reftarget", "")
    thing = locate(target) if node.get("refdomain") == "py" and target.startswith("lee.") else None
    if thing is None:
        return None
    domain, ending = env.get_domain("py"), "." + target.rpartition(".")[2]
    for other in domain.objects:
        if other.endswith(ending) and locate(other) is thing:
            return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], other, node, contnode)
    return None


def setup(app: "Sphinx") -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", keep_requests_at_home, priority=900)
    app.connect("config-inited", rank_pages)
    app.connect("builder-inited", add_static_files)
    app.connect("source-read", make_live)
    app.connect("doctree-read", tell_reading_time)
    app.connect("missing-reference", resolve_alias)
    app.connect("doctree-resolved", tell_definitions)
    app.add_directive("lee-api", ApiDirective)
    app.add_directive("lee-chapters", ChaptersDirective)
    app.add_directive("lee-scoreboard", ScoreboardDirective)
    app.add_directive("lee-status", StatusDirective)
    # FontAwesome's observer would rewrite icons inside widgets while they are being built.
    app.add_js_file(None, body="window.FontAwesomeConfig = {observeMutations: false};", priority=1)
    app.add_js_file("lee.js", loading_method="defer")
    app.add_css_file("lee.css", priority=900)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}
