#!/usr/bin/env bash
# Starts Nextflow from the jars beside this file, without looking for anything on the network.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
export NXF_HOME=${NXF_HOME:-$here/home}
export NXF_PLUGINS_DIR=${NXF_PLUGINS_DIR:-$NXF_HOME/plugins}
export NXF_OFFLINE=true NXF_DISABLE_CHECK_LATEST=true NXF_PLUGINS_DEFAULT=false
export NXF_VER=25.04.0 NXF_ANSI_LOG=${NXF_ANSI_LOG:-false}

opens=()
for package in lang io nio net util util.concurrent.locks util.concurrent.atomic util.regex nio.file.spi; do
    opens+=("--add-opens=java.base/java.$package=ALL-UNNAMED")
done
for package in sun.nio.ch sun.nio.fs sun.net.www.protocol.{http,https,ftp,file} jdk.internal.{misc,vm}; do
    opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

exec "${JAVA_CMD:-java}" -Djava.awt.headless=true -Dfile.encoding=UTF-8 \
    -XX:+TieredCompilation -XX:TieredStopAtLevel=1 "${opens[@]}" \
    -cp "$here/jars/*" nextflow.cli.Launcher "$@"
