"""Voila for the person who started it: a token, this machine's own addresses, this site's own pages, a few kernels."""

import asyncio
import threading
import webbrowser
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

MOST_KERNELS = 4
"""Pages that are served at once; each has a process of some hundred megabytes."""

ABANDONED = timedelta(seconds=30)
"""After this time without a page and without work, a kernel gives way to another."""


class Kernels(AsyncMappingKernelManager):
    """At most :data:`MOST_KERNELS`; one that no page is connected to gives way, and ends by itself after five minutes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.cull_idle_timeout, self.cull_interval = 300, 60
        self._one_by_one = asyncio.Lock()

    async def start_kernel(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Start a kernel, unless there are as many as there may be, each with a page, which shows the text of the error."""
        async with self._one_by_one:  # so that many requests at once are counted
            if len(self) >= MOST_KERNELS:
                await self._make_room()
            started: str = await super().start_kernel(**kwargs)
            return started

    async def _make_room(self) -> None:
        for kernel_id in self.list_kernel_ids():
            kernel: Any = self.get_kernel(kernel_id)
            quiet = datetime.now(UTC) - kernel.last_activity > ABANDONED and kernel.execution_state != "busy"
            if quiet and not self._kernel_connections.get(kernel_id):
                await self.shutdown_kernel(kernel_id, now=True)  # type: ignore[no-untyped-call]
                return
        raise HTTPError(503, f"{MOST_KERNELS} pages of the explorer are open. Close one, then load this page again.")


class Own:
    """What each answer is held to: asked by the server's own pages or by nobody's, never by those of another site."""

    def skip_check_origin(self) -> bool:
        """Never, not even with the token."""
        return False

    async def prepare(self, **kwargs: Any) -> None:
        """Refuse other hosts (jupyter_server does) and other sites, before anything is started."""
        await super().prepare(**kwargs)  # type: ignore[misc]
        request = self.request  # type: ignore[attr-defined]
        foreign = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if not self.check_origin() or (foreign and not self.token_authenticated):  # type: ignore[attr-defined]
            raise HTTPError(403, "This page is not for other sites.")


class Page(Own, TornadoVoilaHandler):  # type: ignore[misc]
    """The page itself; loading it starts a kernel."""

    async def prepare(self, **_: Any) -> None:
        """Refuse who has no token."""
        await super().prepare(_redirect_to_login=False)
        _ = self.xsrf_token  # asked for, it becomes the cookie with which a page that is left may end its kernel

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the sentence of an error as plain text."""
        error = kwargs.get("exc_info", (None, None))[1]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        unknown = "Open the address that `lee explore` printed: its end is the key to this page."
        other = unknown if status_code == 403 else f"The explorer can't answer (status {status_code})."
        self.finish(getattr(error, "log_message", None) or other)


class Server(Voila):  # type: ignore[misc]
    """Voila with these rules; `ready` is called with the page's address once it can be opened."""

    def __init__(self, ready: Callable[[str], None], *, browses: bool) -> None:
        super().__init__()
        self.ready, self.browses = ready, browses

    def _config_file_paths_default(self) -> list[str]:
        return []  # a file voila.py where the command is started would be run

    def init_settings(self) -> dict[str, Any]:
        """Return voila's settings with checks of the header `Host`, and messages as large as an upload."""
        from lee.explorer.pictures import MOST_BYTES

        most = 10 * MOST_BYTES  # what is somewhat too large for an upload is answered in the app
        return {**super().init_settings(), "allow_remote_access": False, "websocket_max_message_size": most}

    def init_handlers(self) -> list[Any]:
        """Return voila's handlers, each held to :class:`Own`."""
        return [(pattern, _own(handler), *rest) for pattern, handler, *rest in super().init_handlers()]

    def launch_browser(self) -> None:
        """Tell the address, now that the server listens; open it if that was asked for."""
        address = f"{self.connection_url}?token={self.identity_provider.token}"
        self.ready(address)
        if self.browses:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _own(handler: type) -> type:
    if handler is TornadoVoilaHandler:
        return Page
    return type(handler.__name__, (Own, handler), {}) if issubclass(handler, JupyterHandler) else handler
