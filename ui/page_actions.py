"""What a user does with a job from anywhere on the page: page.js says so, and every tab may change."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.bundled.scenes import plural
from t2i_tools.errors import InputError
from t2i_tools.images.metadata import read_settings

from .advice import SETTINGS
from .identity import owner_of
from .job_list import history_html, list_html, tokens_of
from .job_panel import ASKED, QUIET, JobPanel, Updates
from .jobs.generate import values_of_settings
from .jobs.grid import GRID
from .kept_form import MOST_LETTERS
from .objects import counted_prompt
from .queue import Job
from .service import Service
from .uploads import IMAGE_SUFFIXES, keep_image, uploaded

STRIP, LISTED = 24, 60
TICK = 2.0
# Hands on what page.js has to say; Gradio finds the names of the events in this text.
BRIDGE = """
document.addEventListener("t2i-act", (event) => trigger("act", event.detail));
document.addEventListener("t2i-files", async (event) => {
  const paths = [];
  for (const file of event.detail.files) paths.push((await upload(file)).path);
  trigger("drop", { paths, to: event.detail.to });
});
"""


class History:
    """The strip beside the tabs, and the lists of My jobs: live while a job is open."""

    def __init__(self, service: Service):
        self.service = service
        self.strip = gr.HTML(history_html(service, [], ""), elem_id="history-strip", padding=False, render=False)
        self.open = gr.HTML("", elem_id="jobs-open", padding=False, render=False)
        self.ended = gr.HTML("", elem_id="jobs-ended", padding=False, render=False)
        self.timer = gr.Timer(TICK, active=False, render=False)
        self.outputs = [self.strip, self.open, self.ended, self.timer]

    def look(self, owner: str) -> Updates:
        """The lists as they are now."""
        jobs = self.service.jobs.of(owner, most=LISTED)
        unended = [job for job in jobs if job.open]
        return {
            self.strip: history_html(self.service, jobs[:STRIP], self.service.mark(owner)),
            self.open: list_html(self.service, unended, "Waiting and running"),
            self.ended: list_html(self.service, [job for job in jobs if not job.open], "Ended"),
            self.timer: gr.Timer(active=bool(unended)),
        }

    def connect(self, page: gr.Blocks, changes: list[Any]) -> None:
        """Wire it. changes: events after which there may be other jobs."""

        def look(request: gr.Request) -> Updates:
            return self.look(owner_of(request))

        for change in changes:
            change.then(look, None, self.outputs, **QUIET)
        self.timer.tick(look, None, self.outputs, **QUIET)
        page.load(look, None, self.outputs, **QUIET)


class PageActions:
    """Does what is clicked, by the name that the element has as its data-act.

    Which tab is open is the browser's: page.js opens the one that a click leads to at once, and no late answer of the
    server's takes a user away from another.
    """

    def __init__(self, service: Service, panels: Mapping[str, JobPanel], history: History):
        self.service, self.panels, self.history = service, panels, history
        self.bridge = gr.HTML("", js_on_load=BRIDGE, padding=False)
        self.acts: dict[str, Callable[[str, Job, Mapping[str, Any]], Updates]] = {
            "open": self._open,
            "again": self._again,
            "vary": self._vary,
            "compare": self._compare,
            "use": self._use,
            "send": self._send,
            "try": self._try,
            "cancel": self._cancel,
            "delete": self._delete,
            "latest": self._latest,
        }

    def connect(self, page: gr.Blocks) -> None:
        """Wire it, and the address with which a page may have been opened."""
        tabs = [one for panel in self.panels.values() for one in (*panel.outputs, *panel.fields.values())]
        outputs, arrived = [*self.history.outputs, *tabs], gr.Textbox(visible=False)

        def act(request: gr.Request, event: gr.EventData) -> Updates:
            about = event._data if isinstance(event._data, Mapping) else {}
            return self.do(owner_of(request), about)

        def arrive(request: gr.Request) -> Updates:
            name = dict(request.query_params).get("job")
            if not name:
                return {arrived: ""}
            opened = self.do(owner_of(request), {"act": "open", "job": name})
            return {**opened, arrived: self.service.jobs.get(name).kind}

        def drop(request: gr.Request, event: gr.EventData) -> Updates:
            about = event._data if isinstance(event._data, Mapping) else {}
            return self.dropped(owner_of(request), about)

        self.bridge.act(act, None, outputs, **ASKED)
        arrivals = [one for one in self.panels["generate"].arrivals if one not in tabs]
        self.bridge.drop(drop, None, [*outputs, *arrivals], **ASKED)
        opened = page.load(arrive, None, [arrived, *outputs], **ASKED)
        opened.then(None, arrived, None, js="(kind) => t2i.arrive(kind)", **QUIET)

    def do(self, owner: str, about: Mapping[str, Any]) -> Updates:
        """What changes on the page. about: act, job, and what else the act takes. Raises InputError."""
        if about.get("act") in ("exact", "advised"):
            return self._exact(owner, about) if about["act"] == "exact" else self._advised(about)
        act = self.acts.get(str(about.get("act")))
        if act is None:
            raise InputError(f"unknown act {str(about.get('act'))[:40]!r}: choose {', '.join(self.acts)}")
        job = self.service.job_of(owner, about.get("job"))
        return act(owner, job, about) | self.history.look(owner)

    def dropped(self, owner: str, about: Mapping[str, Any]) -> Updates:
        """Files that were dropped or pasted anywhere: images to look at on Detect, elsewhere one with settings."""
        paths = about.get("paths")
        if not isinstance(paths, list) or not paths:
            raise InputError("nothing was dropped")
        if about.get("to") == "detect":
            images = [str(uploaded(self.service, {"path": path}, IMAGE_SUFFIXES)) for path in paths]
            return {self.panels["detect"].fields["images"]: images}
        return self.panels["generate"].arrive(owner, {"path": paths[0]})

    def _open(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        return self.panels[job.kind].look(owner, "", job.id)

    def _again(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        return self._start(owner, self.service.again(job))

    def _vary(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        return self._start(owner, self.service.again(job, vary=True))

    def _start(self, owner: str, job: Job) -> Updates:
        return self.panels[job.kind].look(owner, "", "")

    def _compare(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        self.service.compare(job)
        return self._latest(owner, job, about)

    def _use(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        return self._fill(owner, job.kind, job.asked)

    def _send(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        if about.get("to") == "generate":
            return self._fill(owner, "generate", values_of_settings(read_settings(self._image(job, about))))
        if about.get("to") == "detect":
            return self._fill(owner, "detect", {"images": [keep_image(self.service, self._image(job, about))]})
        return self._count(owner, job.asked.get("prompt"), _shared_values(job))

    def _try(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        """The form of Generate with the tokens of a search, in a prompt of its classes that it was not learned on."""
        known, names = self.service.registry.of(owner).tokens(), tokens_of(job)
        if not names or not known.keys() >= set(names):
            raise InputError("the tokens of this search no longer exist: run the search again to learn new ones")
        labels = list(job.asked["counts"])
        places = ["{count}"] if len(labels) == 1 else [f"{{{label}}}" for label in labels]
        things = " and ".join(f"{place} {plural(label)}" for place, label in zip(places, labels, strict=True))
        updates = self._fill(
            owner, "generate", {**_shared_values(job), "prompt": f"{things} on a white background", "number": 4}
        )
        field = self.panels["generate"].fields["count_tokens"]
        return updates | {
            field: gr.Dropdown(list(known), value=names, multiselect=True)
        }  # it may be newer than the page

    def _exact(self, owner: str, about: Mapping[str, Any]) -> Updates:
        return self._count(owner, about.get("text"), {})

    def _count(self, owner: str, prompt: object, kept: Mapping[str, Any]) -> Updates:
        """The form of Count with a prompt and its numbers. Raises InputError where it has none."""
        request = counted_prompt(prompt[:MOST_LETTERS]) if isinstance(prompt, str) else None
        if request is None:
            raise InputError("this prompt asks for no number of objects of a known class")
        return self._fill(owner, "count", {**kept, "counts": request[0], "prompt": request[1]})

    def _advised(self, about: Mapping[str, Any]) -> Updates:
        """The form of Generate with what was advised."""
        settings = SETTINGS.get(str(about.get("to")))
        if settings is None:
            raise InputError(f"unknown advice {str(about.get('to'))[:40]!r}: choose {', '.join(SETTINGS)}")
        return {self.panels["generate"].fields[name]: value for name, value in settings.items()}

    def _cancel(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        self.service.cancel(job)
        return {}

    def _delete(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        self.service.delete(job)
        return self.panels[job.kind].look(owner, "deleted", "")

    def _latest(self, owner: str, job: Job, about: Mapping[str, Any]) -> Updates:
        return self.panels[job.kind].look(owner, "", "")

    def _fill(self, owner: str, kind: str, values: Mapping[str, Any]) -> Updates:
        """The form of a tab with these values."""
        panel = self.panels[kind]
        return {panel.fields[name]: value for name, value in panel.write(owner, values).items()}

    def _image(self, job: Job, about: Mapping[str, Any]) -> Path:
        """The image of a job's that is on the stage: the first where `index` is none of them. Raises InputError."""
        index = about.get("index")
        paths = [path for path in self.service.paths(job) if path.suffix == ".png" and path.name != GRID]
        if not paths:
            raise InputError("this job has made no image")
        return paths[index] if isinstance(index, int) and 0 <= index < len(paths) else paths[0]


def _shared_values(job: Job) -> dict[str, Any]:
    """The values of a job that forms of other kinds have, too."""
    return {name: job.asked[name] for name in ("size", "negative", "model") if job.asked.get(name)}
