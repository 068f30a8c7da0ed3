"""Routes: aws.ec2.RouteTable, Route, RouteTableAssociation."""

from __future__ import annotations

import zlib
from typing import Any

from deployer.sandbox.aws.resource import AwsResource, tags_of
from deployer.sandbox.provider_base import Call, ProviderError, Values

TARGETS = {
    "gatewayId": "GatewayId",
    "natGatewayId": "NatGatewayId",
    "networkInterfaceId": "NetworkInterfaceId",
    "transitGatewayId": "TransitGatewayId",
    "vpcPeeringConnectionId": "VpcPeeringConnectionId",
}


def _target(values: Values) -> dict[str, str]:
    return {parameter: values[name] for name, parameter in TARGETS.items() if values.get(name)}


class RouteTable(AwsResource):
    token, kind, label, tag_type = "aws:ec2/routeTable:RouteTable", "ec2:route-table", "Route Table", "route-table"
    inputs = frozenset({"vpcId", "routes", "region", "tags"})
    required = ("vpcId",)
    replace_on = frozenset({"vpcId"})
    sets = frozenset({"routes"})
    optional = frozenset({"routes"})
    outputs = ("arn", "ownerId", "routes", "propagatingVgws")

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        made = ec2.create_route_table(VpcId=inputs["vpcId"], TagSpecifications=tags)
        return str(made["RouteTable"]["RouteTableId"])

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        if "routes" not in news:
            return
        had = {route["cidrBlock"]: _target(route) for route in live["routes"]}
        wanted = {route["cidrBlock"]: _target(route) for route in news["routes"] or []}
        for cidr in had:
            if cidr not in wanted:
                ec2.delete_route(RouteTableId=resource_id, DestinationCidrBlock=cidr)
        for cidr, target in wanted.items():
            if cidr not in had:
                ec2.create_route(RouteTableId=resource_id, DestinationCidrBlock=cidr, **target)
            elif had[cidr] != target:
                ec2.replace_route(RouteTableId=resource_id, DestinationCidrBlock=cidr, **target)

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        table = ec2.describe_route_tables(RouteTableIds=[resource_id])["RouteTables"][0]
        own = [
            {"cidrBlock": route["DestinationCidrBlock"]}
            | {name: route[parameter] for name, parameter in TARGETS.items() if route.get(parameter)}
            for route in table["Routes"]
            if route.get("GatewayId") != "local" and route.get("DestinationCidrBlock")
        ]
        return {
            "arn": self.arn(call, state, f"route-table/{resource_id}"),
            "ownerId": table["OwnerId"],
            "propagatingVgws": [],
            # Told only to a table that lists its routes: those of aws.ec2.Route resources are not this one's.
            "routes": own if state.get("routes") else [],
            "tagsAll": tags_of(table),
            "vpcId": table["VpcId"],
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        ec2.delete_route_table(RouteTableId=resource_id)


class Route(AwsResource):
    token, kind, label = "aws:ec2/route:Route", "ec2:route", "Route"
    inputs = frozenset({"routeTableId", "destinationCidrBlock", "destinationIpv6CidrBlock", "region", *TARGETS})
    required = ("routeTableId",)
    replace_on = frozenset({"routeTableId", "destinationCidrBlock", "destinationIpv6CidrBlock"})
    outputs = ("instanceId", "instanceOwnerId", "origin", "state")

    @staticmethod
    def _destination(values: Values) -> dict[str, str]:
        if values.get("destinationCidrBlock"):
            return {"DestinationCidrBlock": values["destinationCidrBlock"]}
        return {"DestinationIpv6CidrBlock": values["destinationIpv6CidrBlock"]}

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        if not inputs.get("destinationCidrBlock") and not inputs.get("destinationIpv6CidrBlock"):
            raise ProviderError("creating Route: one of destinationCidrBlock, destinationIpv6CidrBlock must be given")
        destination = self._destination(inputs)
        ec2.create_route(RouteTableId=inputs["routeTableId"], **destination, **_target(inputs))
        return self._id(inputs)

    def _id(self, values: Values) -> str:
        destination = next(iter(self._destination(values).values()))
        return f"r-{values['routeTableId']}{zlib.crc32(destination.encode())}"

    def adopt(self, call: Call, ec2: Any, import_id: str) -> tuple[str, Values]:
        table, _, destination = import_id.partition("_")
        name = "destinationIpv6CidrBlock" if ":" in destination else "destinationCidrBlock"
        values = {"routeTableId": table, name: destination}
        return self._id(values), values

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        if not created and _target(news) != _target(live):
            ec2.replace_route(RouteTableId=news["routeTableId"], **self._destination(news), **_target(news))

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        ((parameter, destination),) = self._destination(state).items()
        table = ec2.describe_route_tables(RouteTableIds=[state["routeTableId"]])["RouteTables"][0]
        route = next((route for route in table["Routes"] if route.get(parameter) == destination), None)
        if route is None:
            return None
        return {
            **{name: route.get(parameter, "") for name, parameter in TARGETS.items()},
            parameter[0].lower() + parameter[1:]: destination,
            "instanceId": route.get("InstanceId", ""),
            "instanceOwnerId": route.get("InstanceOwnerId", ""),
            "origin": route.get("Origin", "CreateRoute"),
            "routeTableId": state["routeTableId"],
            "state": route.get("State", "active"),
        }

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        if self.describe(call, ec2, resource_id, state) is not None:
            ec2.delete_route(RouteTableId=state["routeTableId"], **self._destination(state))


class RouteTableAssociation(AwsResource):
    token, kind = "aws:ec2/routeTableAssociation:RouteTableAssociation", "ec2:route-table-association"
    label = "Route Table Association"
    inputs = frozenset({"routeTableId", "subnetId", "gatewayId", "region"})
    required = ("routeTableId",)
    replace_on = frozenset({"subnetId", "gatewayId"})

    def make(self, call: Call, ec2: Any, inputs: Values, tags: list[dict[str, Any]]) -> str:
        target = {"GatewayId": inputs["gatewayId"]} if inputs.get("gatewayId") else {"SubnetId": inputs.get("subnetId")}
        made = ec2.associate_route_table(RouteTableId=inputs["routeTableId"], **target)
        return str(made["AssociationId"])

    def _find(self, ec2: Any, resource_id: str, state: Values) -> dict[str, Any] | None:
        """By its id; or by subnet, as replacing the table gives the association another id."""
        tables = ec2.describe_route_tables()["RouteTables"]
        every = [association for table in tables for association in table["Associations"]]
        for association in every:
            if association.get("RouteTableAssociationId") == resource_id:
                return dict(association)
        wanted = state.get("subnetId")
        return next((dict(a) for a in every if wanted and a.get("SubnetId") == wanted), None)

    def finish(self, call: Call, ec2: Any, resource_id: str, news: Values, live: Values, created: bool) -> None:
        if live["routeTableId"] != news["routeTableId"]:
            found = self._find(ec2, resource_id, news) or {}
            ec2.replace_route_table_association(
                AssociationId=found["RouteTableAssociationId"], RouteTableId=news["routeTableId"]
            )

    def describe(self, call: Call, ec2: Any, resource_id: str, state: Values) -> Values | None:
        found = self._find(ec2, resource_id, state)
        if found is None:
            return None
        return {
            "gatewayId": found.get("GatewayId", ""),
            "routeTableId": found["RouteTableId"],
            "subnetId": found.get("SubnetId", ""),
        }

    def adopt(self, call: Call, ec2: Any, import_id: str) -> tuple[str, Values]:
        found = self._find(ec2, import_id, {"subnetId": import_id.split("/")[0]})
        return (str(found["RouteTableAssociationId"]) if found else import_id), {}

    def remove(self, call: Call, ec2: Any, resource_id: str, state: Values) -> None:
        found = self._find(ec2, resource_id, state)
        if found is not None:
            ec2.disassociate_route_table(AssociationId=found["RouteTableAssociationId"])
