"""What MRS answers about clusters, hosts and nodes: the vendor's field names and types.

Source: huaweicloudsdkmrs v1 (Cluster, HostModel) and v2 (ClusterNode); `mrsEcsDefaultAgency` as terraform reads it.
"""

from deployments.emulator.commands import DUPLICATE_OFFSET
from deployments.emulator.inventory import Cluster, Host, identifier
from deployments.emulator.region import Region


class MrsRecords:
    """Writes the records of a region as MRS shows them, under the faults that hold now."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def state(self, cluster: Cluster) -> str:
        """clusterState."""
        fault = self._region.faults.find("cluster-state", cluster.id)
        return fault.text("value", "abnormal") if fault else "running"

    def _agency(self, cluster: Cluster) -> dict[str, str]:
        find = self._region.faults.find
        if find("record-absent", cluster.id):
            return {}
        if find("record-empty", cluster.id):
            return {"mrsEcsDefaultAgency": ""}
        if stale := find("record-stale", cluster.id):
            return {"mrsEcsDefaultAgency": stale.text("value", cluster.last_agency)}
        return {"mrsEcsDefaultAgency": cluster.agency_record}

    def cluster(self, cluster: Cluster) -> dict[str, object]:
        """An entry of cluster_infos."""
        created = str(int(self._region.clock.start.timestamp() + cluster.created))
        masters = sum(host.is_master for host in cluster.hosts.values())
        cores = len(cluster.hosts) - masters
        state = self.state(cluster)
        return {
            "clusterId": cluster.id,
            "clusterName": cluster.name,
            "clusterState": state,
            "stageDesc": None,
            "createAt": created,
            "updateAt": created,
            "chargingStartTime": created,
            "billingType": "Metered",
            "dataCenter": self._region.region,
            "vpc": "vpc-emulated",
            "vpcId": identifier("vpc"),
            "subnetId": identifier("subnet"),
            "subnetName": "subnet-emulated",
            "securityGroupsId": identifier("security-group"),
            "tenantId": self._region.project_id,
            "totalNodeNum": str(len(cluster.hosts)),
            "masterNodeNum": str(masters),
            "coreNodeNum": str(cores),
            "masterNodeIp": cluster.master.ip if cluster.hosts else "",
            "internalIp": cluster.master.ip if cluster.hosts else "",
            "externalIp": "",
            "safeMode": 1,
            "clusterVersion": "MRS 3.2.0-LTS.1",
            "clusterType": 0,
            "componentList": [
                {
                    "componentId": "MRS 3.2.0-LTS.1_001",
                    "componentName": "Hadoop",
                    "componentVersion": "3.3.1",
                    "componentDesc": "",
                }
            ],
            "nodeGroups": [
                _group_record("master_node_default_group", masters),
                _group_record("core_node_default_group", cores),
            ],
            "taskNodeGroups": [],
            "tags": "",
            "isMrsManagerFinish": True,
            "enterpriseProjectId": "0",
            "eipId": "",
            "eipAddress": "",
            "errorInfo": "",
            "remark": "",
            "scale": state if state.startswith("scaling") else "",
            **self._agency(cluster),
        }

    def server(self, host: Host) -> dict[str, object]:
        """An entry of hosts."""
        down = self._region.faults.find("host-down", *host.place)
        return {
            "id": host.server_id,
            "name": host.name,
            "ip": host.ip,
            "status": "SHUTOFF" if down else "ACTIVE",
            "flavor": "c6.4xlarge.4.linux.mrs",
            "type": "MasterNode" if host.is_master else "CoreNode",
            "mem": "65536",
            "cpu": "16",
            "root_volume_size": "480",
            "data_volume_type": "SAS",
            "data_volume_size": 600,
            "data_volume_count": 1,
            "node_group_name": node_group(host),
        }

    def node(self, host: Host, detail: bool, sizes: bool) -> dict[str, object]:
        """An entry of nodes, with instances if `detail` and sizes of the server if `sizes`."""
        down = self._region.faults.find("host-down", *host.place)
        server: dict[str, object] = {
            "server_id": host.server_id,
            "server_name": host.name,
            "server_type": "ECS",
            "internal_ip": host.ip,
        }
        if sizes:
            server |= {"cpu": "16", "mem": "65536", "cpu_type": "x86"}
            server |= {"root_volume": {"type": "SAS", "size": 480, "count": 1}}
            server |= {"data_volumes": [{"type": "SAS", "size": 600, "count": 1}]}
        node: dict[str, object] = {
            "node_name": host.name,
            "resource_id": identifier("resource", host.server_id),
            "node_group_name": node_group(host),
            "node_type": "Master" if host.is_master else "Core",
            "billing_type": "on-quantity",
            "deployment_type": "Server",
            "node_status": "Faulty" if down else "Running",
            "tags": [],
            "server_info": server,
        }
        if detail:
            node["node_detail"] = {
                "running_status": "Faulty" if down else "Normal",
                "cpu_usage": "7.1",
                "memory_usage": "40.2",
            }
            node["component_infos"] = self._instances(host)
        return node

    def _instances(self, host: Host) -> list[dict[str, str]]:
        other = ("HDFS", "NameNode") if host.is_master else ("HDFS", "DataNode")
        found = [_instance(500_000 + (host.instance_id or 0), *other, "Normal")]
        if host.instance_id is not None:
            status = self._region.meta.reported(host, "nodes")
            found.append(_instance(host.instance_id, "meta", "meta", status))
            if self._region.faults.find("instance-duplicated", *host.place):
                found.append(_instance(host.instance_id + DUPLICATE_OFFSET, "meta", "meta", status))
        return found


def _instance(number: int, service: str, role: str, status: str) -> dict[str, str]:
    return {
        "id": str(number),
        "name": role,
        "instance_group_name": "default",
        "running_status": status,
        "ha_status": "",
        "config_status": "Synchronized",
        "role_name": role,
        "role_short_name": role,
        "role_type": "",
        "service_name": service,
    }


def node_group(host: Host) -> str:
    """The name of the node group a host is in."""
    return "master_node_default_group" if host.is_master else "core_node_default_group"


def _group_record(name: str, count: int) -> dict[str, object]:
    return {"GroupName": name, "NodeNum": count, "NodeSize": "c6.4xlarge.4.linux.mrs", "DataVolumeType": "SAS"}
