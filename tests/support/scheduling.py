"""Which of pytest-xdist's processes tests which file."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

BROWSER_FILES = "tests/end_to_end/"
BROWSER_PROCESSES = 2


class FewBrowsers(LoadFileScheduling):
    """Gives the files that need a browser to two processes, as long as there are other files.

    A process that takes one starts the app with the bundled bridge and a Chromium, and the page
    is compiled: a quarter of a minute of a processor's time.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        tests_browser = node in self.nodes[:BROWSER_PROCESSES]
        for file in self.workqueue:
            if file.startswith(BROWSER_FILES) == tests_browser:
                self.workqueue.move_to_end(file, last=False)
                break
        super()._assign_work_unit(node)
