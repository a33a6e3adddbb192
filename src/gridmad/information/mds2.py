"""gw_im_mad_mds2: the hosts that Globus' MDS publishes, as a BDII does; only defaults differ."""

from gridmad.information.bdii import BdiiInformation


class Mds2Information(BdiiInformation):
    """MDS2, a directory with GLUE 1 below mds-vo-name=local,o=grid."""

    summary = "Hosts and queues that a Globus MDS2 (LDAP) publishes in GLUE 1."
    source = "the MDS"
    port = 2135
    glue = "1"


DRIVER = Mds2Information
