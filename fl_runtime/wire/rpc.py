"""The methods of the two services, by hand: names, shapes, serializers. `None` as serializer means raw bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from fl_runtime.proto import fedspan_pb2 as pb

HUB = "fedspan.v1.Hub"
BLOBS = "fedspan.v1.Blobs"


def _method(channel: grpc.Channel, shape: str, path: str, request: Any, reply: Any) -> Callable[..., Any]:
    make = getattr(channel, shape)
    method: Callable[..., Any] = make(
        path,
        request_serializer=request.SerializeToString if request else None,
        response_deserializer=reply.FromString if reply else None,
    )
    return method


class HubStub:
    """Client side of the service Hub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.connect = _method(channel, "stream_stream", f"/{HUB}/Connect", pb.ToHub, pb.ToParticipant)
        self.submit = _method(channel, "unary_unary", f"/{HUB}/Submit", pb.SubmitRequest, pb.SubmitReply)
        self.ask = _method(channel, "unary_unary", f"/{HUB}/Ask", pb.Question, pb.Answer)
        self.command = _method(channel, "unary_unary", f"/{HUB}/Command", pb.Order, pb.Answer)
        self.watch = _method(channel, "unary_stream", f"/{HUB}/Watch", pb.WatchRequest, pb.WatchEvent)
        self.revoke = _method(channel, "unary_unary", f"/{HUB}/Revoke", pb.Revocations, pb.RevokeReply)


class BlobsStub:
    """Client side of the service Blobs; `push` and `pull` move raw chunks."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.describe = _method(channel, "unary_unary", f"/{BLOBS}/Describe", pb.BlobQuery, pb.Manifest)
        self.offer = _method(channel, "unary_unary", f"/{BLOBS}/Offer", pb.OfferRequest, pb.OfferReply)
        self.pull = _method(channel, "unary_stream", f"/{BLOBS}/Pull", pb.PullRequest, None)
        self.push: Any = _method(channel, "stream_unary", f"/{BLOBS}/Push", None, pb.PushReply)


def hub_handlers(servicer: Any) -> grpc.GenericRpcHandler[Any, Any]:
    """Server side of Hub: `servicer` has connect, submit, ask, watch, revoke."""
    return grpc.method_handlers_generic_handler(
        HUB,
        {
            "Connect": grpc.stream_stream_rpc_method_handler(
                servicer.connect, pb.ToHub.FromString, pb.ToParticipant.SerializeToString
            ),
            "Submit": grpc.unary_unary_rpc_method_handler(
                servicer.submit, pb.SubmitRequest.FromString, pb.SubmitReply.SerializeToString
            ),
            "Ask": grpc.unary_unary_rpc_method_handler(
                servicer.ask, pb.Question.FromString, pb.Answer.SerializeToString
            ),
            "Command": grpc.unary_unary_rpc_method_handler(
                servicer.command, pb.Order.FromString, pb.Answer.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                servicer.watch, pb.WatchRequest.FromString, pb.WatchEvent.SerializeToString
            ),
            "Revoke": grpc.unary_unary_rpc_method_handler(
                servicer.revoke, pb.Revocations.FromString, pb.RevokeReply.SerializeToString
            ),
        },
    )


def blob_handlers(servicer: Any) -> grpc.GenericRpcHandler[Any, Any]:
    """Server side of Blobs: `servicer` has describe, offer, pull, push."""
    return grpc.method_handlers_generic_handler(
        BLOBS,
        {
            "Describe": grpc.unary_unary_rpc_method_handler(
                servicer.describe, pb.BlobQuery.FromString, pb.Manifest.SerializeToString
            ),
            "Offer": grpc.unary_unary_rpc_method_handler(
                servicer.offer, pb.OfferRequest.FromString, pb.OfferReply.SerializeToString
            ),
            "Pull": grpc.unary_stream_rpc_method_handler(servicer.pull, pb.PullRequest.FromString, None),
            "Push": grpc.stream_unary_rpc_method_handler(servicer.push, None, pb.PushReply.SerializeToString),
        },
    )
