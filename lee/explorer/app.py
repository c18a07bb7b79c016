"""The explorer's behaviour: controls make a state, and :mod:`lee.explorer.measures` says what is shown of it.

Work goes in steps, quickest first. A slider that moves in the meantime makes what is left of them stale, and they are
dropped; what is shown stays until something newer replaces it, also when an input can't be used.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as widgets

from lee.errors import LeeError
from lee.explorer import controls, drawing, pictures
from lee.explorer.measures import Measures
from lee.explorer.state import MOST_MODELS, PRESETS, START, State, mixture_of
from lee.explorer.tabs import TABS
from lee.geometry.generators import NAMED
from lee.models import imagenet

PAUSE = 0.03
"""Seconds without a change before work starts, and in which changes are noticed between two steps."""

LONGEST_STILL = 0.2
"""Seconds after which a first step is shown even though a slider is still moving."""

SLOTS = {"images": ("images",), "models": tuple(f"model{which}" for which in range(MOST_MODELS))}
"""Where a message stands that is about what one of these controls says."""

PARTS = ("status", "frames", "thumbs", "errors", *TABS, "motion", "upload", *SLOTS)
"""What shows something."""

Work = Callable[[], Iterator[None]]


class Explorer:
    """The app: display it in a notebook, or serve it with `lee explore`.

    Args:
        state: What is shown at first; by default a network of ImageNet on a photograph, or, without its weights, one of the zoo.
        measures: Where results are kept; two apps may share one.
        folders: Folders of images that may be shown; by default any may be, by its name `imagefolder:…`.

    Attributes:
        state: What is shown now.
        widget: The root of the widgets.
        control: The controls, by what they set.
        tabs: The tabs; what the open one shows is computed, and nothing for the others.
        mixture: The sliders of the mixture.
        shown: The parts that show something, by name, as of :data:`PARTS`.
    """

    def __init__(
        self, state: State | None = None, measures: Measures | None = None, *, folders: Sequence[str] | None = None
    ) -> None:
        self.state = state or (START if START.models[0] in imagenet.names() else next(iter(PRESETS.values())))
        self.measures = measures or Measures()
        self._folders = None if folders is None else tuple(f"{pictures.FOLDER}{folder}" for folder in folders)
        self.shown = {name: widgets.HTML() for name in PARTS}
        self.control, self.mixture = controls.controls(self.state, self._folders or ()), controls.mixture(self.state)
        self.tabs = controls.tabs(self.control, self.shown)
        self.widget = controls.arranged(self.control, self.mixture, self.shown, self.tabs)
        self._upload: bytes | None = self.state.upload
        self._generation, self._quiet, self._shown_at, self._thumbed = 0, False, 0.0, ("", 0, 0)
        self._task: asyncio.Task[None] | None = None  # the loop itself keeps only a weak reference
        self._observe()
        for _ in self._guarded(self._everything):  # at once: a page that is still loading may miss what changes later
            pass

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _observe(self) -> None:
        special = {"generator": self._on_generator, "upload": self._on_upload, "thumbs": self._on_thumbs}
        special |= {"images": self._on_images, "index": self._on_images, "preset": self._on_preset}
        for name, control in self.control.items():
            if name.startswith("list_"):
                control.observe(partial(self._on_list, name.removeprefix("list_")), "value")
            else:
                control.observe(special.get(name, self._on_change), "value")
        for slider in self.mixture:
            slider.observe(self._on_mixture, "value")
        self.tabs.observe(self._on_change, "selected_index")

    # What the reader does

    def _on_change(self, _: Any) -> None:
        if not self._quiet:
            self._run(self._everything)

    def _on_generator(self, change: Any) -> None:
        if not self._quiet and change["new"] != controls.MIXTURE:
            self._set(zip(self.mixture, mixture_of(NAMED[change["new"]]), strict=True))
        self._on_change(change)

    def _on_mixture(self, change: Any) -> None:
        if not self._quiet and any(slider.value for slider in self.mixture):
            self._set([(self.control["generator"], controls.entry(replace(self.state, mixture=self._coefficients())))])
        self._on_change(change)

    def _on_images(self, change: Any) -> None:
        if not self._quiet:
            self._upload = None
        self._on_change(change)

    def _on_thumbs(self, change: Any) -> None:
        if not self._quiet and change["new"] is not None:
            self._upload = None
            self._set([(self.control["index"], change["new"])])
            self._run(self._everything)

    def _on_list(self, name: str, change: Any) -> None:
        """What is chosen of a list is written into the field below it, which decides; that is shown where it is needed."""
        if not self._quiet and change["new"] != controls.OTHER:
            self.control[name].value = change["new"]
        controls.reveal(self.control)

    def _on_preset(self, change: Any) -> None:
        wanted = change["new"]
        if not isinstance(wanted, State):
            return
        names = (*wanted.models, *("",) * (MOST_MODELS - len(wanted.models)))
        values = {name: getattr(wanted, name) for name in ("images", "t", "kernel", "boundary", "n", "patch", "reach")}
        values |= {f"model{which}": name for which, name in enumerate(names)} | {"generator": controls.entry(wanted)}
        self.control["index"].max = max(self.control["index"].max, wanted.index)
        self._set([*((self.control[name], value) for name, value in (values | {"index": wanted.index}).items())])
        self._set(zip(self.mixture, wanted.mixture, strict=True))
        self._upload = None
        self._run(self._everything)

    def _on_upload(self, change: Any) -> None:
        """Try the file before it becomes part of the state: a broken one changes nothing."""
        if not change["new"]:
            return
        file = change["new"][0]
        try:
            content = bytes(file["content"])
            pictures.decode(content)
        except LeeError as error:
            self.shown["upload"].value = drawing.error(f"{file['name']}: {error}")
            return
        self._upload, self.shown["upload"].value = content, ""
        self._on_change(change)

    def _set(self, values: Iterable[tuple[Any, Any]]) -> None:
        """Move controls without the app noticing."""
        self._quiet = True
        try:
            for control, value in values:
                control.value = value
        finally:
            self._quiet = False

    def _coefficients(self) -> tuple[float, ...]:
        return tuple(round(slider.value, 9) for slider in self.mixture)

    def _wanted(self) -> State:
        """The state that the controls describe.

        Raises:
            InputError: One of them can't be used.
        """
        value = {name: control.value for name, control in self.control.items()}
        names = [value[f"model{which}"].strip() for which in range(MOST_MODELS)]
        if self._folders is not None:
            pictures.check_offered(value["images"].strip(), self._folders)
        fields = {name: value[name] for name in ("index", "pretrained", "kernel", "boundary", "n", "patch", "reach")}
        fields |= {"images": value["images"].strip(), "upload": self._upload, "t": round(value["t"], 9)}
        return State(models=(names[0], *filter(None, names[1:])), mixture=self._coefficients(), **fields)

    def _fitting(self, state: State) -> State:
        """The state with an index that its data set has; the slider ends at the last one."""
        last = len(self.measures.images(state, self.measures.side(state))) - 1
        slider = self.control["index"]
        if slider.max != last:
            self._set([(slider, min(state.index, last))])
            slider.max = last
        return replace(state, index=min(state.index, last))

    # What the app does

    def _run(self, work: Work) -> None:
        """Do the steps of some work: at once, or, where a loop runs, between the loop's other duties."""
        self._generation += 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for _ in self._guarded(work):
                pass
            return
        self._task = loop.create_task(self._in_steps(work, self._generation))

    async def _in_steps(self, work: Work, generation: int) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(PAUSE)
        if generation != self._generation and clock() < self._shown_at + LONGEST_STILL:
            return
        for _ in self._guarded(work):
            self._shown_at = clock()
            await asyncio.sleep(PAUSE)
            if generation != self._generation:
                return

    def _guarded(self, work: Work) -> Iterator[None]:
        """The steps; whatever goes wrong is told in the app, beside the control that it is about, and what was shown stays."""
        self._set(controls.lists(self.control))
        controls.reveal(self.control)
        for slot in ("motion", "upload", *SLOTS):
            self.shown[slot].value = ""
        try:
            yield from work()
        except LeeError as error:
            self.shown["status"].value = drawing.working("")
            self.shown[self._slot(str(error))].value = drawing.error(str(error))
        except Exception as error:  # a model of timm may raise anything, and a notebook would hide it in a log
            self.shown["status"].value = drawing.error(f"{type(error).__name__}: {str(error).strip()[:300]}")

    def _slot(self, message: str) -> str:
        """The part beside the control that a message is about."""
        if not any(self._coefficients()):
            return "motion"
        for slot, names in SLOTS.items():
            values = [self.control[name].value.strip().removeprefix(pictures.FOLDER) for name in names]
            if not values[0] or any(value and value in message for value in values):
                return slot
        return "status"

    def _everything(self) -> Iterator[None]:
        """Pictures, then the open tab, then errors."""
        self.shown["status"].value = drawing.working("Computing …")
        state = self._fitting(self._wanted())
        self._show_frames(state)
        yield
        yield from self._show_tab(state)
        yield from self._show_errors(state)
        self.shown["status"].value = drawing.working("")

    def _show_frames(self, state: State) -> None:
        generator = state.generator
        moved, tangent = self.measures.frame(state)
        self.shown["frames"].value = drawing.frames(
            self.measures.image(state)[0], moved[0], tangent[0], name=generator.name, unit=generator.unit, t=state.t
        )
        self._show_thumbs(state)
        self.state = state

    def _show_thumbs(self, state: State) -> None:
        """The small pictures among which the chosen one is; the slider of the index leads to others."""
        thumbs, first = self.control["thumbs"], state.index // controls.THUMBS * controls.THUMBS
        every, titles = self.measures.images(state, self.measures.side(state)), self.measures.titles(state)
        chosen = (state.images, first, len(every))
        if self._thumbed != chosen:
            few = every[first : first + controls.THUMBS]
            self.shown["thumbs"].value = drawing.thumbs(few, controls.thumbs_class(thumbs))
            self._quiet = True
            try:
                controls.offer_thumbs(thumbs, range(first, first + len(few)), titles)
            finally:
                self._quiet = False
            self._thumbed = chosen
        self._set([(thumbs, state.index if state.upload is None else None)])

    def _show_tab(self, state: State) -> Iterator[None]:
        """What the open tab shows, all models at once; a step for each. What the others showed may no longer hold."""
        title, drawn = tuple(TABS)[self.tabs.selected_index or 0], []
        for which, model in enumerate(state.models):
            self.shown["status"].value = drawing.working(f"{title}: computing for {model} …")
            yield
            self.measures.model(state, which)  # what is wrong with its name is told beside that
            try:
                drawn.append(TABS[title](self.measures, state, which))
            except LeeError as error:
                drawn.append(drawing.error(f"{model}: {error}"))
        for other in TABS:
            self.shown[other].value = drawing.beside(drawn) if other == title else ""

    def _show_errors(self, state: State) -> Iterator[None]:
        """The error of this image and of the set: a step for each portion of it that is not measured yet."""
        m, words = self.measures, {"name": state.generator.name, "images": state.images}
        here = [(model, m.error_here(state, which)) for which, model in enumerate(state.models)]
        for which, model in enumerate(state.models):
            for done in m.error_steps(state, which):
                self.shown["errors"].value = drawing.errors([(*row, None) for row in here], **words)
                self.shown["status"].value = drawing.working(f"{model}: {done} of {m.count(state)} images")
                yield
        rows = [(*row, m.error(state, which)) for which, row in enumerate(here)]
        self.shown["errors"].value = drawing.errors(rows, **words)
