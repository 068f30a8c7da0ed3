"""Calls back into the program: transforms, hooks."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from pulumi.runtime.proto import callback_pb2, callback_pb2_grpc

from .provider import CHANNEL

Answer = TypeVar("Answer", bound=Message)


class Callbacks:
    """One connection to each callback server that the program names."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()

    def invoke(self, callback: callback_pb2.Callback, request: Message, answer: type[Answer]) -> Answer:
        with self._lock:
            channel = self._channels.get(callback.target)
            if channel is None:
                channel = self._channels[callback.target] = grpc.insecure_channel(callback.target, options=CHANNEL)
        stub: Any = callback_pb2_grpc.CallbacksStub(channel)
        packed = callback_pb2.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())
        response = stub.Invoke(packed)
        out = answer()
        out.ParseFromString(response.response)
        return out

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
