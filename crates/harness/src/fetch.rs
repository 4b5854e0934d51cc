//! Apache Kafka and Apicurio Registry from Maven Central, once, into `<target>/harness`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use super::scratch;

pub const KAFKA_VERSION: &str = "4.2.0";
pub const REGISTRY_VERSION: &str = "2.6.13.Final";

/// The lowest Java that Kafka 4's broker runs on (KIP-1013).
const JAVA_MIN: u32 = 17;

const MAVEN_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

/// The folder with Kafka's jars.
pub fn kafka() -> PathBuf {
    let dir = fetched(&format!("kafka-{KAFKA_VERSION}"), "Apache Kafka", 55, |dir| {
        fs::write(dir.join("pom.xml"), KAFKA_POM.replace("$kafka", KAFKA_VERSION)).unwrap();
        maven(dir, &[&format!("{MAVEN_PLUGIN}:copy-dependencies"), "-DoutputDirectory=libs"]);
    });
    dir.join("libs")
}

/// The registry's `...-runner.jar`; its libraries lie beside it.
pub fn registry() -> PathBuf {
    let dir = fetched(&format!("apicurio-{REGISTRY_VERSION}"), "Apicurio Registry", 142, |dir| {
        let artifact = format!("-Dartifact=io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all");
        maven(dir, &[&format!("{MAVEN_PLUGIN}:unpack"), &artifact, "-DoutputDirectory=."]);
    });
    dir.join(format!("apicurio-registry-app-{REGISTRY_VERSION}-runner.jar"))
}

/// The `java` of `JAVA_HOME` or of the path, once it is known to be new enough.
pub fn java() -> &'static Path {
    static JAVA: OnceLock<PathBuf> = OnceLock::new();
    const REMEDY: &str = "Debian, Ubuntu: apt-get install openjdk-17-jre-headless; or set JAVA_HOME";
    JAVA.get_or_init(|| {
        let java = match std::env::var_os("JAVA_HOME") {
            Some(home) => Path::new(&home).join("bin/java"),
            None => PathBuf::from("java"),
        };
        let Ok(output) = Command::new(&java).arg("-version").output() else {
            panic!("The tests run a real Kafka, which needs Java {JAVA_MIN}: no {} here. {REMEDY}", java.display());
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let version = java_version(&text).unwrap_or_default();
        assert!(version >= JAVA_MIN, "Kafka needs Java {JAVA_MIN} or newer, but this one says: {text}{REMEDY}");
        java
    })
}

/// The major version in what `java -version` prints: `openjdk version "17.0.15" 2025-04-15`.
fn java_version(text: &str) -> Option<u32> {
    text.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse().ok()
}

/// log4j's binding is what Kafka's own distribution ships beside the jars that these two bring.
const KAFKA_POM: &str = r"<project xmlns='http://maven.apache.org/POM/4.0.0'>
  <modelVersion>4.0.0</modelVersion>
  <groupId>causeway</groupId>
  <artifactId>test-harness</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$kafka</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$kafka</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.3</version>
    </dependency>
  </dependencies>
</project>
";

/// The folder `name` in the harness, filled by `fill` if it is not there yet.
///
/// It is filled under another name and renamed when complete, so an interrupted download leaves no half of it; the lock
/// makes a second process wait for the first one's.
fn fetched(name: &str, title: &str, size_mb: u32, fill: impl FnOnce(&Path)) -> PathBuf {
    let harness = scratch::harness();
    let complete = harness.join(name);
    if complete.exists() {
        return complete;
    }
    fs::create_dir_all(&harness).unwrap();
    let lock = File::create(harness.join("fetch.lock")).unwrap();
    lock.lock().unwrap();
    if complete.exists() {
        return complete;
    }
    let started = Instant::now();
    progress(&format!("fetching {title} ({name}) from Maven Central (once, {size_mb} MB)"));
    let partial = harness.join(format!("{name}.partial"));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).unwrap();
    fill(&partial);
    fs::rename(&partial, &complete).unwrap();
    progress(&format!("fetched {name} in {} s", started.elapsed().as_secs()));
    complete
}

/// Straight to standard error: what `eprintln!` prints in a test is shown only when that test fails.
fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn maven(dir: &Path, args: &[&str]) {
    const REMEDY: &str = "Debian, Ubuntu: apt-get install maven openjdk-17-jre-headless";
    java();
    let maven = Command::new("mvn")
        // Checksums that differ are a failure, not a warning.
        .args(["--quiet", "--batch-mode", "--strict-checksums", "-Dstyle.color=never"])
        .args(args)
        .current_dir(dir)
        .output();
    let Ok(output) = maven else {
        panic!("The tests fetch Kafka and a schema registry with Maven: no `mvn` on the path. {REMEDY}");
    };
    assert!(
        output.status.success(),
        "mvn {} failed ({}). Is Maven Central, or your mirror of it (~/.m2/settings.xml), within reach?\n{}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
