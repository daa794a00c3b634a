"""ComfyUI: the graph that it ran, as its API takes it, read from the node that saves the image upwards."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from t2i_tools.images.settings.reading import FileSettings, Reading, whole

Node = Mapping[str, Any]
SAVES = ("SaveImage", "PreviewImage", "SaveImageWebsocket", "Image Save", "SaveAnimatedWEBP")
TEXTS = ("text", "text_g", "t5xxl", "clip_l", "prompt", "string", "value", "positive", "text_positive", "wildcard_text")
PARTS = ("text_g", "text_l", "clip_g", "clip_l", "t5xxl")  # texts of one node, one for each text encoder
# Nodes on the way to the sampler that change the image and have no counterpart here.
ACTING = re.compile(r"ControlNet.*Apply|ApplyControlNet|StyleModelApply|IPAdapter|unCLIP|GLIGEN|FreeU|CLIPSetLastLayer")
NUMBERS = ("value", "int", "float", "number", "seed", "noise_seed", "Number")
MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")
SEEDS = ("seed", "noise_seed")


def read_graph(graph: Mapping[str, Any]) -> FileSettings | None:
    """The settings of the image that a graph saves; None for an object that is no graph."""
    nodes: dict[str, Mapping[str, Any]] = {
        str(name): node
        for name, node in graph.items()
        if isinstance(node, dict) and isinstance(node.get("class_type"), str)
    }
    if not nodes:
        return None
    return _Graph(nodes).read()


class _Graph:
    def __init__(self, nodes: dict[str, Node]):
        self.nodes = nodes
        self.reading = Reading("ComfyUI")

    def read(self) -> FileSettings:
        """The settings of the sampler that draws the saved image."""
        reading = self.reading
        sampler = self._sampler()
        if sampler is None:
            reading.take_text("prompt", "")
            reading.note("no node of this graph draws an image in a way that is known here")
            return reading.result()
        self._take_texts(sampler)
        reading.take_seed(self._lookup(sampler, SEEDS, "noise"))
        reading.take_steps(self._lookup(sampler, ("steps",), "sigmas"))
        self._take_guidance(sampler)
        self._take_sampler(sampler)
        self._take_size(sampler)
        for _, node in self._above(sampler, ("model", "guider", "clip")):
            self._take_model(node)
        self._note_acting(sampler)
        return reading.result()

    def _note_acting(self, sampler: str) -> None:
        above = self._above(sampler, ("model", "guider", "clip", "positive", "negative"))
        kinds = dict.fromkeys(node["class_type"][:60] for _, node in above)
        if acting := [kind for kind in kinds if ACTING.search(kind)]:
            self.reading.note(f"not used here: {', '.join(acting[:8])}")

    def _sampler(self) -> str | None:
        """The node that draws the saved image from noise: of several in a row the first."""
        ends = [name for name, node in self.nodes.items() if node["class_type"] in SAVES]
        reached = list(dict.fromkeys(name for end in ends or self.nodes for name, _ in self._above(end)))
        samplers = [name for name in reached if self._draws(self.nodes[name])]
        if len(samplers) > 1:
            fresh = [name for name in samplers if self._begins(name)]
            self.reading.note(f"the graph samples {len(samplers)} times: the settings are those of the first")
            samplers = fresh or samplers
        return samplers[0] if samplers else None

    def _draws(self, node: Node) -> bool:
        inputs = _inputs(node)
        return "latent_image" in inputs and ("positive" in inputs or "guider" in inputs)

    def _begins(self, name: str) -> bool:
        """Whether no other sampler stands before it."""
        return not any(self._draws(node) for one, node in self._above(name, ("latent_image",)) if one != name)

    def _take_texts(self, sampler: str) -> None:
        inputs = _inputs(self.nodes[sampler])
        guider = _link(inputs.get("guider"))
        if guider in self.nodes:
            inputs = _inputs(self.nodes[guider])
        texts = {
            "prompt": self._text(inputs.get("positive", inputs.get("conditioning")), "positive"),
            "negative": self._text(inputs.get("negative"), "negative"),
        }
        if texts["prompt"] is None:
            self.reading.note("the prompt is in no node that is known here")
        self.reading.take_text("prompt", texts["prompt"] or "")
        self.reading.take_text("negative", texts["negative"])

    def _text(self, link: Any, side: str) -> str | None:
        """The text that a conditioning comes from; nodes between are passed through."""
        found: list[str] = []
        waiting, seen = deque([_link(link)]), set()
        while waiting:
            name = waiting.popleft()
            if name not in self.nodes or name in seen:
                continue
            seen.add(name)
            inputs = _inputs(self.nodes[name])
            if self.nodes[name]["class_type"] == "ConditioningZeroOut":
                continue
            text = self._node_text(name)
            if text is not None:
                found.append(text)
                continue
            through = [value for key, value in inputs.items() if key.startswith(("conditioning", side, "cond"))]
            waiting.extend(_link(value) for value in through)
        if len(found) > 1:
            self.reading.note(f"the {side} prompt is put together from {len(found)} texts: only the first is read")
        return found[0] if found else None

    def _node_text(self, name: str) -> str | None:
        """The text in a node, or in the node of texts that it is linked to."""
        seen = set()
        while name in self.nodes and name not in seen:
            seen.add(name)
            inputs = _inputs(self.nodes[name])
            parts = {inputs[key] for key in PARTS if isinstance(inputs.get(key), str)} - {""}
            if len(parts) > 1:
                self.reading.note(f"the prompt is {len(parts)} texts for as many text encoders: only the first is read")
            values = [inputs[key] for key in TEXTS if key in inputs]
            for value in values:
                if isinstance(value, str) and (value or len(values) == 1):
                    return value
            links = [link for key in TEXTS[:-3] if (link := _link(inputs.get(key)))]
            if not links:
                return None
            name = links[0]
        return None

    def _take_guidance(self, sampler: str) -> None:
        """Of Flux the distilled guidance is what diffusers calls guidance_scale."""
        for _, node in self._above(sampler, ("positive", "guider", "conditioning")):
            inputs = _inputs(node)
            if node["class_type"] == "FluxGuidance" or ("guidance" in inputs and "t5xxl" in inputs):
                self.reading.take_guidance(self._value(inputs["guidance"]) if "guidance" in inputs else None)
                return
        scale = self._lookup(sampler, ("cfg",), "guider")
        if scale is not None:
            self.reading.take_guidance(scale)

    def _take_sampler(self, sampler: str) -> None:
        name = self._lookup(sampler, ("sampler_name",), "sampler")
        schedule = self._lookup(sampler, ("scheduler",), "sigmas")
        if name == "ddim":  # there it is Euler's method, on any schedule
            name = "euler"
        self.reading.take_sampler(name, schedule)
        if schedule == "beta":
            self.reading.note("ComfyUI's schedule 'beta' is spaced by timesteps, that of diffusers by sigmas")
        denoise = self._lookup(sampler, ("denoise",), "sigmas")
        if isinstance(denoise, int | float) and not isinstance(denoise, bool) and denoise != 1:
            self.reading.note(f"not used here: denoise {denoise:g}, the image began from another one")

    def _take_size(self, sampler: str) -> None:
        for _, node in self._above(sampler, ("latent_image", "samples", "latent", "pixels", "image")):
            inputs = _inputs(node)
            sides = [self._value(inputs.get(side)) for side in ("width", "height")]
            if all(whole(side) is not None for side in sides) and "mage" in node["class_type"]:
                self.reading.take_size(*sides)
                return
        self.reading.note("the size is in no node that is known here")

    def _take_model(self, node: Node) -> None:
        inputs = _inputs(node)
        if "lora_name" in inputs:
            strength = self._value(inputs.get("strength_model", 1.0))
            self.reading.take_lora(_bare(inputs["lora_name"]), strength)
        for key in MODELS:
            if isinstance(inputs.get(key), str) and "model" not in self.reading.settings:
                self.reading.take_text("model", _bare(inputs[key]))

    def _lookup(self, name: str, keys: tuple[str, ...], through: str) -> Any:
        """A value of a node, or of the node that it is linked to by `through`, or of one before that."""
        for _, node in [(name, self.nodes[name]), *self._above(name, (through,))]:
            inputs = _inputs(node)
            for key in keys:
                if key in inputs:
                    return self._value(inputs[key])
        return None

    def _value(self, value: Any) -> Any:
        """A value, or that of the node which it is linked to."""
        seen = set()
        while (name := _link(value)) in self.nodes and name not in seen:
            seen.add(name)
            inputs = _inputs(self.nodes[name])
            value = next((inputs[key] for key in NUMBERS if key in inputs), None)
        return None if isinstance(value, list | dict) else value

    def _above(self, name: str, first: tuple[str, ...] = ()) -> Iterator[tuple[str, Node]]:
        """The node and all that it is made from, the nearest first. first: follow only these inputs of the node."""
        waiting, seen = deque([name]), {name}
        while waiting:
            one = waiting.popleft()
            node = self.nodes[one]
            yield one, node
            for key, value in _inputs(node).items():
                if one == name and first and key not in first:
                    continue
                if (link := _link(value)) in self.nodes and link not in seen:
                    seen.add(link)
                    waiting.append(link)


def _inputs(node: Node) -> dict[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _link(value: Any) -> str | None:
    """The node that an input is linked to: [node, output]."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        return str(value[0])
    return None


def _bare(file: Any) -> Any:
    """A file's name without folders and ending."""
    if not isinstance(file, str):
        return file
    return file.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors").removesuffix(".ckpt")
