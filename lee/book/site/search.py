"""The search of the site: Sphinx's own index, with the ranking and the excerpts of `static/search.js`."""

from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

# Sphinx's list of English words that say nothing lacks those of questions.
QUESTIONS = """
    i me my mine we us our you your he she they them its how what which who why when where do does did done doing can could
    should would may might must have has had having am been being than from about so just also any some all there here please
    want need get show find tell explain mean means
"""


class BookSearch(SearchEnglish):
    """English, as readers ask: words such as *how* and *my* are neither indexed nor looked for."""

    stopwords = SearchEnglish.stopwords | {*QUESTIONS.split()}


def rank_pages(app: "Sphinx", config: "Config") -> None:
    """Have `static/search.js` count and show what is found."""
    config.html_search_scorer = str(Path(__file__).parent / "static" / "search.js")
    app.add_search_language(BookSearch)
