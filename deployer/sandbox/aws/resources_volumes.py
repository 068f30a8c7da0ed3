"""Volumes and keys: aws.ebs.Volume, aws.ec2.VolumeAttachment, aws.ec2.KeyPair."""

from __future__ import annotations

import zlib
from typing import Any

from deployer.sandbox.aws.resource import AwsResource, tags_of
from deployer.sandbox.provider_base import Call, Values


class Volume(AwsResource):
    token, kind, label, tag_type = "aws:ebs/volume:Volume", "ec2:volume", "EBS Volume", "volume"
    inputs = frozenset(
        {
            "availabilityZone",
            "encrypted",
            "finalSnapshot",
            "iops",
            "kmsKeyId",
            "size",
            "snapshotId",
            "throughput",
            "type",
        }
        | {"region", "tags"}
    )
    required = ("availabilityZone",)
    replace_on = frozenset({"availabilityZone", "encrypted", "kmsKeyId", "snapshotId"})
    optional = frozenset({"iops", "kmsKeyId", "snapshotId", "throughput", "size", "type"})
    outputs = ("arn", "createTime", "encrypted", "iops", "kmsKeyId", "size", "snapshotId", "throughput", "type")
    not_read = frozenset({"finalSnapshot"})
    parameters = {"size": "Size", "type": "VolumeType", "iops": "Iops", "throughput": "Throughput"}

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        given = {
            parameter: inputs[name]
            for name, parameter in {
                **self.parameters,
                "encrypted": "Encrypted",
                "kmsKeyId": "KmsKeyId",
                "snapshotId": "SnapshotId",
            }.items()
            if inputs.get(name) is not None
        }
        made = ec2.create_volume(
            AvailabilityZone=inputs["availabilityZone"], ClientToken=call.attempt, TagSpecifications=tags, **given
        )
        return str(made["VolumeId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        changed = {
            parameter: news[name]
            for name, parameter in self.parameters.items()
            if news.get(name) is not None and news[name] != live[name]
        }
        if changed and not created:
            ec2.modify_volume(VolumeId=resource_id, **changed)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        volume = ec2.describe_volumes(VolumeIds=[resource_id])["Volumes"][0]
        kind = volume.get("VolumeType", "gp2")
        # gp3's base line (EBS user guide): 3000 IOPS, 125 MiB/s; moto tells only what was asked for.
        base_iops = 3000 if kind == "gp3" else max(100, min(16000, 3 * int(volume["Size"])))
        return {
            "arn": self.arn(call, state, f"volume/{resource_id}"),
            "availabilityZone": volume["AvailabilityZone"],
            "createTime": volume["CreateTime"].isoformat(),
            "encrypted": bool(volume["Encrypted"]),
            "iops": volume.get("Iops") or base_iops,
            "kmsKeyId": volume.get("KmsKeyId", ""),
            "multiAttachEnabled": False,
            "outpostArn": "",
            "size": volume["Size"],
            "snapshotId": volume.get("SnapshotId", ""),
            "tagsAll": tags_of(volume),
            "throughput": volume.get("Throughput") or (125 if kind == "gp3" else 0),
            "type": kind,
        }

    def imported(self, wanted: Values, outputs: Values) -> Values:
        return {**wanted, "size": outputs["size"], "type": outputs["type"]}

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if state.get("finalSnapshot"):
            ec2.create_snapshot(
                VolumeId=resource_id, TagSpecifications=self.tag_specifications(call, state, "snapshot")
            )
        ec2.delete_volume(VolumeId=resource_id)


class VolumeAttachment(AwsResource):
    token, kind = "aws:ec2/volumeAttachment:VolumeAttachment", "ec2:volume-attachment"
    label = "EBS Volume Attachment"
    inputs = frozenset(
        {"deviceName", "instanceId", "volumeId", "forceDetach", "skipDestroy", "stopInstanceBeforeDetaching", "region"}
    )
    required = ("deviceName", "instanceId", "volumeId")
    replace_on = frozenset({"deviceName", "instanceId", "volumeId"})
    not_read = frozenset({"forceDetach", "skipDestroy", "stopInstanceBeforeDetaching"})

    @staticmethod
    def _id(device: str, volume: str, instance: str) -> str:
        return f"vai-{zlib.crc32(f'{device}-{instance}-{volume}-'.encode())}"

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        device, volume, instance = inputs["deviceName"], inputs["volumeId"], inputs["instanceId"]
        attached = self._attached(ec2, inputs)
        if attached is None or attached["Device"] != device:  # as the real provider: look first, attach when needed
            ec2.attach_volume(Device=device, VolumeId=volume, InstanceId=instance)
        return self._id(device, volume, instance)

    def adopt(self, call: Call, ec2: Any, import_id: str) -> tuple[str, Values]:
        device, _, rest = import_id.partition(":")  # DEVICE:VOLUME:INSTANCE
        volume, _, instance = rest.partition(":")
        return self._id(device, volume, instance), {"deviceName": device, "volumeId": volume, "instanceId": instance}

    def _attached(self, ec2: Any, state: Values) -> dict[str, Any] | None:
        volume = ec2.describe_volumes(VolumeIds=[state["volumeId"]])["Volumes"][0]
        return next((dict(a) for a in volume.get("Attachments", []) if a["InstanceId"] == state["instanceId"]), None)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        attached = self._attached(ec2, state)
        if attached is None:
            return None
        return {
            "deviceName": attached["Device"],
            "instanceId": attached["InstanceId"],
            "volumeId": state["volumeId"],
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if state.get("skipDestroy") or self._attached(ec2, state) is None:
            return
        if state.get("stopInstanceBeforeDetaching"):
            ec2.stop_instances(InstanceIds=[state["instanceId"]])
        ec2.detach_volume(Device=state["deviceName"], VolumeId=state["volumeId"], InstanceId=state["instanceId"])


class KeyPair(AwsResource):
    token, kind, label, tag_type = "aws:ec2/keyPair:KeyPair", "ec2:key-pair", "EC2 Key Pair", "key-pair"
    inputs = frozenset({"keyName", "keyNamePrefix", "publicKey", "region", "tags"})
    required = ("publicKey",)
    replace_on = frozenset({"keyName", "keyNamePrefix", "publicKey"})
    autoname = "keyName"
    outputs = ("arn", "fingerprint", "keyName", "keyPairId", "keyType")
    not_read = frozenset({"keyNamePrefix"})

    def autonamed(self, news: Values) -> bool:
        return not news.get("keyNamePrefix")

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        name = inputs.get("keyName") or f"{inputs['keyNamePrefix']}{call.attempt.replace('-', '')[:26]}"
        made = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=inputs["publicKey"].encode(), TagSpecifications=tags)
        return str(made["KeyName"])

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        pair = ec2.describe_key_pairs(KeyNames=[resource_id], IncludePublicKey=True)["KeyPairs"][0]
        key, recorded = (pair.get("PublicKey") or "").strip(), state.get("publicKey") or ""
        same = recorded.split()[:2] == key.split()[:2]  # a comment may differ
        return {
            "arn": self.arn(call, state, f"key-pair/{resource_id}"),
            "fingerprint": pair["KeyFingerprint"],
            "keyName": pair["KeyName"],
            "keyPairId": pair["KeyPairId"],
            "keyType": pair.get("KeyType", "rsa"),
            "publicKey": recorded if same or not key else key,
            "tagsAll": tags_of(pair),
        }

    def taggable_id(self, resource_id: str, live: Values) -> str:
        return str(live["keyPairId"])

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        ec2.delete_key_pair(KeyName=resource_id)
