"""The plugins as arguments of a pipeline's call."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DiffusionPipeline

from t2i_tools.counting import count_token
from t2i_tools.entropy import entropy_scaling
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle, active_handle
from t2i_tools.longclip import long_prompts
from t2i_tools.models.compiled import unwrapped
from t2i_tools.shrink import deep_shrink

if TYPE_CHECKING:
    from t2i_tools.counting import CountToken

# Argument -> the verb, and what leaves the plugin off.
VERBS: dict[str, Callable[..., Handle]] = {
    "entropy_scaling": entropy_scaling,
    "deep_shrink": deep_shrink,
    "long_prompts": long_prompts,
    "count_token": count_token,
}
PLUGINS = {"entropy_scaling": False, "deep_shrink": False, "long_prompts": None, "count_token": None}
ANNOTATIONS = {
    "entropy_scaling": "bool | dict",
    "deep_shrink": "bool | dict",
    "long_prompts": "str | dict | None",
    "count_token": "CountToken | path",
}
TEXTS = ("prompt", "prompt_2", "prompt_3")
COUNT = "{count}"


class Adaptive:
    """This mixin, before a pipeline of diffusers, lets the call take the plugins, each for that call alone.

    Without them a call is the stock pipeline's. A plugin whose handle is already installed is not given here as well;
    nor should one be where the denoiser is compiled, for it would compile anew each time: install it once. What is
    saved opens in plain diffusers. Any other pipeline: `class Mine(Adaptive, diffusers.Lumina2Pipeline): pass`.

    The call has these arguments besides the stock pipeline's:

    - entropy_scaling: True, or a dict of `t2i_tools.entropy_scaling`'s arguments such as {"native": (1024, 1024)};
      False by default.
    - deep_shrink: True, or a dict of `t2i_tools.deep_shrink`'s arguments such as {"share": 0.35}; False by default.
    - long_prompts: "stretch", "chunk" or "truncate", or a dict of `t2i_tools.long_prompts`' arguments; none by default.
    - count_token: A `CountToken` or the file that its `save` wrote; "{count}" in the prompt becomes its word and
      number; none by default.

    The call raises InputError or UnsupportedModelError, before the first step.

    Example:
        >>> from t2i_tools.pipelines import AdaptiveStableDiffusionPipeline
        >>> adaptive = AdaptiveStableDiffusionPipeline.from_pipe(pipe)
        >>> image = adaptive("two cats", height=64, width=64, entropy_scaling=True).images[0]
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Adaptive in cls.__bases__ or "__call__" in vars(cls):
            setattr(cls, "__call__", with_plugins(cls.__call__))  # noqa: B010  # a base class brings it

    @classmethod
    def from_pipe(
        cls,
        pipeline: DiffusionPipeline,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **parts: object,
    ) -> Adaptive:
        """Make a pipeline around the components of another one, which are shared and stay in the precision they have.

        Args:
            pipeline: The other pipeline.
            dtype: Cast all components, in the other pipeline too; None (the default) casts none.
            torch_dtype: What older diffusers calls `dtype`.
            parts: Components and settings to take instead.

        Returns:
            A pipeline of this class.

        Raises:
            UnsupportedModelError: The other one lacks a component.
        """
        wanted = {name: one for name, one in inspect.signature(cls.__init__).parameters.items() if name != "self"}
        settings = {name.removeprefix("_"): value for name, value in pipeline.config.items()}
        present = settings | pipeline.components
        components = {name: value for name, value in present.items() if name in wanted} | parts
        missing = [name for name, one in wanted.items() if one.default is one.empty and name not in components]
        if missing:
            raise UnsupportedModelError(
                f"{cls.__name__} needs {', '.join(missing)}, which {type(pipeline).__name__} lacks: pass it as well"
            )
        made: Any = cls(**components)
        # As diffusers does: a setting without use here is kept for the next pipeline.
        unused = {f"_{name}": value for name, value in settings.items() if name not in components}
        made.register_to_config(**unused)
        dtype = dtype or torch_dtype
        return made if dtype is None else made.to(dtype=dtype)

    def to_json_string(self) -> str:
        """Write the configuration, which names the stock pipeline: any diffusers can open what is saved.

        Returns:
            JSON.
        """
        config = json.loads(super().to_json_string())  # type: ignore[misc]  # of the pipeline that comes after
        return json.dumps(config | {"_class_name": stock_class(type(self)).__name__}, indent=2, sort_keys=True) + "\n"


def stock_class(kind: type) -> type:
    """The pipeline of diffusers that an adaptive class derives from."""
    return next(base for base in kind.__mro__ if base.__module__.split(".")[0] == "diffusers")


def with_plugins(call: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline's `__call__` with an argument for each plugin, and otherwise its own signature."""
    signature = inspect.signature(call)

    @wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        plugins = {name: kwargs.pop(name, off) for name, off in PLUGINS.items()}
        chosen = {name: value for name, value in plugins.items() if value is not None and value is not False}
        args = (self, *args)
        if "count_token" in chosen:
            chosen["count_token"] = opened(chosen["count_token"])
            bound = signature.bind(*args, **kwargs)
            bound.arguments |= filled(bound.arguments, chosen["count_token"])
            args, kwargs = bound.args, bound.kwargs
        with ExitStack() as stack:
            for name, value in chosen.items():
                stack.enter_context(switch_on(self, name, value))
            return call(*args, **kwargs)

    setattr(__call__, "__signature__", signature.replace(parameters=extended(signature.parameters)))  # noqa: B010
    return __call__


def extended(parameters: Mapping[str, inspect.Parameter]) -> list[inspect.Parameter]:
    """The parameters with those of the plugins, which are given by name."""
    own = [parameter for name, parameter in parameters.items() if name not in PLUGINS]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=off, annotation=ANNOTATIONS[name])
        for name, off in PLUGINS.items()
    ]
    rest = [own.pop()] if own[-1].kind is inspect.Parameter.VAR_KEYWORD else []
    return [*own, *more, *rest]


def switch_on(pipe: Any, name: str, value: Any) -> Handle:
    """The handle of a plugin. Raises InputError, or what the plugin raises."""
    verb = VERBS[name]
    plugin = f"count token {value.word}" if name == "count_token" else name.replace("_", " ")
    modules = [unwrapped(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    if any(active_handle(module, plugin) for module in modules):  # it would end with the call
        raise InputError(f"{name} is already installed in this pipeline: remove its handle, or leave the argument out")
    args = () if value is True or isinstance(value, dict) else (value,)
    kwargs = value if isinstance(value, dict) else {}
    try:
        bound = inspect.signature(verb).bind(pipe, *args, **kwargs)
    except TypeError as error:
        options = ", ".join(list(inspect.signature(verb).parameters)[1:])
        raise InputError(f"{name}={value!r} is not valid ({error}): use True or a dict of {options}") from error
    return verb(*bound.args, **bound.kwargs)


def opened(token: CountToken | str) -> CountToken:
    """The token, read from its file where it is one. Raises InputError or ModelError."""
    from t2i_tools.counting import CountToken

    return token if isinstance(token, CountToken) else CountToken.load(token)


def filled(arguments: Mapping[str, Any], token: CountToken) -> dict[str, Any]:
    """The prompts among a call's arguments with the token's word in them. Raises InputError where none has a place."""
    texts = {name: arguments[name] for name in TEXTS if arguments.get(name) is not None}
    made = {
        name: [written(one, token) for one in text] if isinstance(text, (list, tuple)) else written(text, token)
        for name, text in texts.items()
    }
    if not any(token.word in text for text in made.values() for text in ([text] if isinstance(text, str) else text)):
        raise InputError(f'the prompt has no place for {token.word}: write "{COUNT}" where the number goes')
    return made


def written(prompt: str, token: CountToken) -> str:
    return token.prompt(prompt) if COUNT in prompt else prompt
