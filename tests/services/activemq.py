"""A private ActiveMQ classic, of Debian's package activemq."""

import os
import shutil
from pathlib import Path

from tests.services import pki
from tests.services.stomp_server import (
    LIMITED_LOGIN,
    LIMITED_PASSWORD,
    LOGIN,
    PASSWORD,
    StompServer,
    write_private,
)

JAR = Path("/usr/share/activemq/bin/activemq.jar")

CONFIGURATION = """\
<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
    http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
    http://activemq.apache.org/schema/core
    http://activemq.apache.org/schema/core/activemq-core.xsd">
 <broker xmlns="http://activemq.apache.org/schema/core" brokerName="t{stomp_port}" useJmx="false"
   persistent="true" dataDirectory="{folder}/data" tmpDataDirectory="{folder}/tmp"
   schedulerSupport="false" startAsync="false">
  <destinationPolicy><policyMap><policyEntries>
    <policyEntry queue="&gt;" producerFlowControl="true" memoryLimit="256mb"
      expireMessagesPeriod="1000" timeBeforeDispatchStarts="0"/>
    <policyEntry topic="&gt;" producerFlowControl="true" memoryLimit="256mb"/>
  </policyEntries></policyMap></destinationPolicy>
  <persistenceAdapter>
    <kahaDB directory="{folder}/data/kahadb" journalMaxFileLength="32mb"
      preallocationStrategy="sparse_file"/>
  </persistenceAdapter>
  <plugins>
   <simpleAuthenticationPlugin anonymousAccessAllowed="false"><users>
    <authenticationUser username="{login}" password="{password}" groups="all"/>
    <authenticationUser username="{limited_login}" password="{limited_password}" groups="some"/>
   </users></simpleAuthenticationPlugin>
   <authorizationPlugin><map><authorizationMap><authorizationEntries>
    <authorizationEntry queue="&gt;" read="all" write="all" admin="all"/>
    <authorizationEntry queue="data.&gt;" read="all,some" write="all,some" admin="all,some"/>
    <authorizationEntry queue="control.&gt;" read="all,some" write="all,some" admin="all,some"/>
    <authorizationEntry queue="allowed.&gt;" read="all,some" write="all,some" admin="all,some"/>
    <authorizationEntry topic="&gt;" read="all,some" write="all,some" admin="all,some"/>
   </authorizationEntries></authorizationMap></map></authorizationPlugin>
  </plugins>
  <sslContext>
   <sslContext keyStore="file:{pkcs12}" keyStoreType="PKCS12"
     keyStorePassword="{pkcs12_password}"/>
  </sslContext>
  <systemUsage><systemUsage>
   <memoryUsage><memoryUsage limit="512 mb"/></memoryUsage>
   <storeUsage><storeUsage limit="2 gb"/></storeUsage>
   <tempUsage><tempUsage limit="1 gb"/></tempUsage>
  </systemUsage></systemUsage>
  <transportConnectors>
   <transportConnector name="stomp"
     uri="stomp://{address}:{stomp_port}?transport.hbGracePeriodMultiplier=1.5"/>
   <transportConnector name="stomp+ssl"
     uri="stomp+ssl://{address}:{tls_port}?transport.hbGracePeriodMultiplier=1.5"/>
  </transportConnectors>
 </broker>
</beans>
"""

LOGGING = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d | %-5p | %m | %c | %t%n
"""


def missing() -> str | None:
    """What is not installed of what a broker needs; None where all is there."""
    if not JAR.exists():
        return "activemq is not installed (apt-get install activemq)"
    if shutil.which("java") is None:
        return "java is not installed (apt-get install default-jre-headless)"
    return pki.missing()


class ActiveMQ(StompServer):
    """One broker.  `is_warm` compiles for a long run (benches), else for a quick start."""

    name = "activemq"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        address: str = "127.0.0.1",
        is_warm: bool = False,
    ) -> None:
        self._is_warm = is_warm
        super().__init__(folder, address=address)

    def _configure(self) -> None:
        for name in ("data", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        write_private(self.folder / "log4j.properties", LOGGING)
        write_private(
            self.folder / "activemq.xml",
            CONFIGURATION.format(
                address=self.address,
                stomp_port=self.stomp_port,
                tls_port=self.tls_port,
                folder=self.folder,
                login=LOGIN,
                password=PASSWORD,
                limited_login=LIMITED_LOGIN,
                limited_password=LIMITED_PASSWORD,
                pkcs12=self.certificate.pkcs12,
                pkcs12_password=pki.PKCS12_PASSWORD,
            ),
        )

    def _command(self) -> tuple[list[str], dict[str, str]]:
        folder = self.folder
        java_home = os.environ.get("JAVA_HOME")
        command = [
            f"{java_home}/bin/java" if java_home else "java",
            *("-Xms64m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:-UsePerfData"),
            f"-XX:TieredStopAtLevel={4 if self._is_warm else 1}",
            *("--add-opens", "java.base/java.lang=ALL-UNNAMED"),
            *("--add-opens", "java.base/java.util=ALL-UNNAMED"),
            f"-Djava.io.tmpdir={folder}/tmp",
            "-Djava.awt.headless=true",
            f"-Dlog4j.configuration=file:{folder}/log4j.properties",
            "-Dactivemq.home=/usr/share/activemq",
            f"-Dactivemq.base={folder}",
            f"-Dactivemq.conf={folder}",
            f"-Dactivemq.data={folder}/data",
            "-Dorg.apache.activemq.UseDedicatedTaskRunner=false",
            *("-jar", str(JAR), "start", f"xbean:file:{folder}/activemq.xml"),
        ]
        return command, {"HOME": str(folder), "LC_ALL": "C.UTF-8"}

    def wait_until_kept(self, queue: str) -> None:
        """Each queue is, from its first persistent message on."""
