"""A Keras model or TensorFlow graph as a torch module, on either of two roads.

    backend: torch        Keras 3 computes with torch; its variables are torch parameters
    backend: tensorflow   TensorFlow computes; tensors cross by DLPack, without a copy on the CPU

        torch ──x──► DLPack ──► tf.function under a GradientTape ──► DLPack ──y──► torch
        torch ◄─dx─ DLPack ◄── tape.gradient ◄── DLPack ◄─dy── torch

On the second road every variable shares its memory with a torch parameter, so one torch optimiser
trains both frameworks, and checkpoints, averages and weights files work as for any module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import dlpack

from semsim.codecs.keras.frameworks import import_tensorflow

ALIGNMENT = 64  #: bytes; TensorFlow ends the process on a tensor that lies elsewhere
Shape = tuple[int | None, ...]


class Network(nn.Module):
    """A model of one or two inputs: the source or the symbols, and the SNR in dB [B, 1].

    Args:
        parameters: what an optimiser may change, then what the model changes itself; in the order
            of the model, so that both roads keep them under the same names.
        trainable: whether they are trained; frozen, the model also runs as in inference.
        shape: of the first input, without batch; None where the model does not say.
        num_inputs: 1 or 2.
    """

    def __init__(
        self,
        parameters: tuple[Sequence[nn.Parameter], Sequence[nn.Parameter]],
        *,
        trainable: bool,
        shape: Shape | None,
        num_inputs: int,
    ) -> None:
        super().__init__()
        if num_inputs not in (1, 2):
            raise ValueError(
                f"model takes {num_inputs} inputs; one is the source or the symbols, a second the "
                "SNR in dB [B, 1], and semsim knows no third"
            )
        trained, kept = parameters
        for parameter in trained:
            parameter.requires_grad_(trainable)
        for parameter in kept:
            parameter.requires_grad_(False)
        self.weights = nn.ParameterList([*trained, *kept])
        self.num_trained = len(trained)
        self.trainable, self.shape, self.num_inputs = trainable, shape, num_inputs
        self.gives_complex = False  #: known after the first pass

    def learns(self) -> bool:
        """Tell whether the model runs as in training."""
        return self.training and self.trainable


class TorchNetwork(Network):
    """A Keras model on Keras's torch backend."""

    def __init__(self, model: Any, keras: Any, *, trainable: bool) -> None:
        trained, kept = variables_of(model)
        parameters = [v.value for v in trained], [v.value for v in kept]
        self.__dict__["_model"] = model  # no submodule: its keys change with each copy of a layer
        shape, num_inputs = inputs_of(model)
        super().__init__(parameters, trainable=trainable, shape=shape, num_inputs=num_inputs)
        self._keras = keras

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output for channels-last inputs; a complex one as [..., 2]."""
        device = inputs[0].device
        with self._keras.device(f"{device.type}:{device.index or 0}"):
            output = call(self._model, inputs, training=self.learns())
        self.gives_complex = output.is_complex()
        return torch.view_as_real(output) if self.gives_complex else output.float()


class TensorFlowNetwork(Network):
    """A Keras model on TensorFlow, or a SavedModel, with gradients in both directions."""

    def __init__(
        self,
        function: Callable[[Sequence[Any], bool], Any],
        variables: tuple[Sequence[Any], Sequence[Any]],
        *,
        trainable: bool,
        shape: Shape | None,
        num_inputs: int,
    ) -> None:
        bond = _Bond([*variables[0], *variables[1]])
        mine = [nn.Parameter(start, requires_grad=False) for start in bond.starts()]
        split = len(variables[0])
        super().__init__(
            (mine[:split], mine[split:]),
            trainable=trainable, shape=shape, num_inputs=num_inputs,
        )  # fmt: skip
        self._bond, self._function = bond, function
        self._graphs: dict[Any, Any] = {}

    def graph(self, inputs: Sequence[Any]) -> Any:
        """Return the graph for inputs of these shapes, in batches of any size."""
        key = (*(tuple(x.shape[1:]) for x in inputs), self.learns())
        if key not in self._graphs:
            tf = import_tensorflow()
            specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs]
            traced = tf.function(functools.partial(self._trace, self.learns()))
            self._graphs[key] = traced.get_concrete_function(*specs)
        return self._graphs[key]

    def _trace(self, training: bool, *inputs: Any) -> Any:
        tf = import_tensorflow()
        output = self._function(inputs, training)
        self.gives_complex = output.dtype.is_complex
        if self.gives_complex:
            output = tf.stack([tf.math.real(output), tf.math.imag(output)], axis=-1)
        return tf.cast(output, tf.float32)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output for channels-last inputs; a complex one as [..., 2]."""
        weights = list(self.weights.parameters())
        if any(t.device.type != "cpu" for t in (*inputs, *weights)):
            raise ValueError(
                "backend tensorflow computes on the CPU, and this link is on "
                f"{inputs[0].device}; write device: cpu, or backend: torch"
            )
        self._bond.tie(weights)
        trained, kept = weights[: self.num_trained], weights[self.num_trained :]
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *trained)):
            out: Tensor = _Crossing.apply(self, len(inputs), *inputs, *trained)
        else:
            values = [to_tensorflow(x) for x in inputs]
            out = _own(to_torch(self.graph(values)(*values)), inputs)
        if self.learns():
            self._bond.pull(kept, self.num_trained)
        return out


class _Crossing(torch.autograd.Function):
    """From torch to TensorFlow and back."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, network: TensorFlowNetwork, count: int, *tensors: Tensor
    ) -> Tensor:
        tf = import_tensorflow()
        inputs = [to_tensorflow(t) for t in tensors[:count]]
        graph = network.graph(inputs)
        wanted = ctx.needs_input_grad[2:]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            nodes = [*inputs, *network._bond.variables[: network.num_trained]]
            sources = [node for node, needed in zip(nodes, wanted, strict=True) if needed]
            tape.watch(sources)
            output = graph(*inputs)
        ctx.save_for_backward(*tensors)  # torch then notices what changes before the way back
        ctx.tape, ctx.output, ctx.sources, ctx.wanted = tape, output, sources, wanted
        return _own(to_torch(output), tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        if ctx.tape is None:
            raise RuntimeError(
                "a second backward pass through the same TensorFlow graph is not possible; run the "
                "forward pass again instead of retain_graph=True"
            )
        found = iter(
            ctx.tape.gradient(ctx.output, ctx.sources, output_gradients=to_tensorflow(upstream))
        )
        ctx.tape = ctx.output = None
        seen, gradients = [*tensors, upstream], list[Tensor | None]()
        for needed in ctx.wanted:
            gradient = next(found) if needed else None
            if gradient is not None:
                gradient = _own(to_torch(_dense(gradient)), seen)
                seen.append(gradient)
            gradients.append(gradient)
        return None, None, *gradients


class _Bond:
    """TensorFlow variables that live in the memory of torch parameters.

    A variable that is assigned a tensor takes over the tensor's memory, so what torch changes in
    place TensorFlow sees. What TensorFlow assigns itself, such as the means of a batch
    normalisation, goes to new memory and has to be pulled back.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self.variables = list(variables)
        self._places: list[int] = [0] * len(self.variables)

    def starts(self) -> list[Tensor]:
        """Return copies of the variables' values, in memory of torch."""
        return [to_torch(v.read_value()).clone() for v in self.variables]

    def tie(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let each variable share the memory of its parameter, where it does not yet."""
        for index, parameter in enumerate(parameters):
            if parameter.data_ptr() != self._places[index]:
                self._tie(index, parameter)

    def pull(self, parameters: Sequence[nn.Parameter], first: int) -> None:
        """Copy what TensorFlow assigned back into the parameters, and share their memory again."""
        with torch.no_grad():
            for index, parameter in enumerate(parameters, first):
                value = to_torch(self.variables[index].read_value())
                if value.data_ptr() != parameter.data_ptr():
                    parameter.copy_(value)
                    self._tie(index, parameter)

    def _tie(self, index: int, parameter: nn.Parameter) -> None:
        if parameter.data_ptr() % ALIGNMENT or not parameter.is_contiguous():
            parameter.data = parameter.detach().contiguous().clone()
        variable = self.variables[index]
        variable.assign(to_tensorflow(parameter))
        shared = to_torch(variable.read_value()).data_ptr() == parameter.data_ptr()
        # a variable that made a copy is assigned anew before every pass
        self._places[index] = parameter.data_ptr() if shared else -1


def to_tensorflow(tensor: Tensor) -> Any:
    """Return a torch tensor on the CPU as TensorFlow's; the same memory where that is possible.

    TensorFlow wants it contiguous, and ends the process where it is not aligned; such are copied.
    """
    tensor = tensor.detach().resolve_neg().contiguous()
    if tensor.data_ptr() % ALIGNMENT:
        tensor = tensor.clone()
    return import_tensorflow().experimental.dlpack.from_dlpack(dlpack.to_dlpack(tensor))


def to_torch(tensor: Any) -> Tensor:
    """Return a TensorFlow tensor on the CPU as torch's, in the same memory."""
    out: Tensor = dlpack.from_dlpack(import_tensorflow().experimental.dlpack.to_dlpack(tensor))
    return out


def _dense(gradient: Any) -> Any:
    """Return the gradient of an embedding, which holds the rows that were used, as a tensor."""
    return import_tensorflow().convert_to_tensor(gradient)


def _own(tensor: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Copy a tensor that shares memory with others: torch would not know, and change both."""
    place = tensor.data_ptr()
    shared = any(o.data_ptr() <= place < o.data_ptr() + o.nbytes for o in others)
    return tensor.clone() if shared else tensor


def variables_of(model: Any) -> tuple[list[Any], list[Any]]:
    """Return the variables of a Keras model: those trained, and those it changes itself."""
    trained = list(model.trainable_variables)
    known = {id(v) for v in trained}
    return trained, [v for v in model.variables if id(v) not in known]


def inputs_of(model: Any) -> tuple[Shape | None, int]:
    """Return the shape of a Keras model's first input, without batch, and how many it has."""
    inputs = getattr(model, "inputs", None)
    if inputs:
        return tuple(inputs[0].shape[1:]), len(inputs)
    arguments = inspect.signature(model.call).parameters.values()
    named = [a for a in arguments if a.name not in ("training", "mask")]
    return None, len([a for a in named if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)])


def call(model: Any, inputs: Sequence[Any], *, training: bool) -> Any:
    """Call a Keras model: two inputs as a list where it was built of layers, else in turn."""
    listed = len(inputs) > 1 and getattr(model, "inputs", None)
    return model(*([list(inputs)] if listed else inputs), training=training)
