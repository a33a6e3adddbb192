"""GLUE 2's entries: what to ask a directory for, and the keys that lead from one to the other.

Source: GFD.147, the GLUE specification 2.0; GFD.218, its LDAP rendering.  No I/O happens here.
"""

from collections.abc import Mapping
from typing import Final

from gridmad.information.glue import texts_of
from gridmad.information.ldap import Entry, Search

SEARCHES: Mapping[str, Search] = {
    search.object_class: search
    for search in (
        Search(
            "GLUE2ComputingShare",
            (
                "GLUE2ShareID",
                "GLUE2ShareServiceForeignKey",
                "GLUE2ShareEndpointForeignKey",
                "GLUE2ShareResourceForeignKey",
                "GLUE2ComputingShareComputingServiceForeignKey",
                "GLUE2ComputingShareComputingEndpointForeignKey",
                "GLUE2ComputingShareExecutionEnvironmentForeignKey",
                "GLUE2ComputingShareMappingQueue",
                "GLUE2ComputingShareServingState",
                "GLUE2ComputingShareMaxWallTime",
                "GLUE2ComputingShareDefaultWallTime",
                "GLUE2ComputingShareMaxCPUTime",
                "GLUE2ComputingShareDefaultCPUTime",
                "GLUE2ComputingShareMaxSlotsPerJob",
                "GLUE2ComputingShareMaxRunningJobs",
                "GLUE2ComputingShareMaxWaitingJobs",
                "GLUE2ComputingShareMaxTotalJobs",
                "GLUE2ComputingShareFreeSlots",
                "GLUE2ComputingShareFreeSlotsWithDuration",
                "GLUE2ComputingShareUsedSlots",
                "GLUE2ComputingShareRunningJobs",
                "GLUE2ComputingShareWaitingJobs",
                "GLUE2ComputingShareEstimatedAverageWaitingTime",
            ),
        ),
        Search("GLUE2MappingPolicy", ("GLUE2MappingPolicyShareForeignKey", "GLUE2PolicyRule")),
        Search(
            "GLUE2ComputingService",
            (
                "GLUE2ServiceID",
                "GLUE2ServiceType",
                "GLUE2ServiceAdminDomainForeignKey",
                # The tree itself tells the site (RFC 5020).
                "entryDN",
            ),
        ),
        Search(
            "GLUE2ComputingEndpoint",
            (
                "GLUE2EndpointID",
                "GLUE2EndpointURL",
                "GLUE2EndpointInterfaceName",
                "GLUE2EndpointHealthState",
                "GLUE2EndpointServingState",
                "GLUE2EndpointServiceForeignKey",
                "GLUE2ComputingEndpointComputingServiceForeignKey",
            ),
        ),
        Search(
            "GLUE2ComputingManager",
            (
                "GLUE2ManagerID",
                "GLUE2ManagerProductName",
                "GLUE2ManagerServiceForeignKey",
                "GLUE2ComputingManagerComputingServiceForeignKey",
                "GLUE2ComputingManagerTotalSlots",
                "GLUE2ComputingManagerTotalLogicalCPUs",
                "GLUE2ComputingManagerWorkingAreaTotal",
                "GLUE2ComputingManagerWorkingAreaFree",
            ),
        ),
        Search(
            "GLUE2ExecutionEnvironment",
            (
                "GLUE2ResourceID",
                "GLUE2ResourceManagerForeignKey",
                "GLUE2ExecutionEnvironmentComputingManagerForeignKey",
                "GLUE2ExecutionEnvironmentPlatform",
                "GLUE2ExecutionEnvironmentTotalInstances",
                "GLUE2ExecutionEnvironmentLogicalCPUs",
                "GLUE2ExecutionEnvironmentCPUModel",
                "GLUE2ExecutionEnvironmentCPUClockSpeed",
                "GLUE2ExecutionEnvironmentMainMemorySize",
                "GLUE2ExecutionEnvironmentOSFamily",
                "GLUE2ExecutionEnvironmentOSName",
                "GLUE2ExecutionEnvironmentOSVersion",
            ),
        ),
        Search(
            "GLUE2Benchmark",
            (
                "GLUE2BenchmarkExecutionEnvironmentForeignKey",
                "GLUE2BenchmarkType",
                "GLUE2BenchmarkValue",
            ),
        ),
    )
}
"""What to ask a directory for, by object class; ARC's entries for jobs are of none of them."""

SERVICE_OF_SHARE: Final = (
    "glue2computingsharecomputingserviceforeignkey",
    "glue2shareserviceforeignkey",
)
SERVICE_OF_ENDPOINT: Final = (
    "glue2computingendpointcomputingserviceforeignkey",
    "glue2endpointserviceforeignkey",
)
SERVICE_OF_MANAGER: Final = (
    "glue2computingmanagercomputingserviceforeignkey",
    "glue2managerserviceforeignkey",
)
ENVIRONMENTS_OF_SHARE: Final = (
    "glue2computingshareexecutionenvironmentforeignkey",
    "glue2shareresourceforeignkey",
)
MANAGER_OF_ENVIRONMENT: Final = (
    "glue2executionenvironmentcomputingmanagerforeignkey",
    "glue2resourcemanagerforeignkey",
)
ENDPOINTS_OF_SHARE: Final = (
    "glue2computingsharecomputingendpointforeignkey",
    "glue2shareendpointforeignkey",
)
KEYS_OF_SHARE: Final = (*SERVICE_OF_SHARE, *ENVIRONMENTS_OF_SHARE, *ENDPOINTS_OF_SHARE)

ARCHITECTURES: Final = {"amd64": "x86_64"}
"""GridWay's names of those that GLUE 2 calls otherwise."""


def keys_of(entry: Entry, *names: str) -> list[str]:
    """The identities that the keys of these names refer to, each once."""
    return list(dict.fromkeys(key for name in names for key in texts_of(entry, name) if key))
