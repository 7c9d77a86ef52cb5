//! moto's S3 server as a child process: what an S3 server that is not ours says.

use anyhow::Context as _;

use crate::clients::programs;
use crate::process::Program;

/// A running server. It ends when it is dropped.
pub struct Moto {
    program: Program,
    _directory: tempfile::TempDir,
}

impl Moto {
    /// One without buckets, whose listings have pages of so many objects. It checks signatures.
    ///
    /// # Errors
    /// When it is not installed or does not get ready.
    pub async fn start(page: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("moto").tempdir()?;
        let script = programs::folder().join("moto_s3.py");
        let script = script.to_str().context("a path in UTF-8")?.to_owned();
        let arguments = [script, "--page".to_owned(), page.to_string()];
        let log = directory.path().join("log");
        let python = programs::interpreter()?;
        let program = Program::start("moto", &python, &arguments, &[], &log).await?;
        Ok(Self { program, _directory: directory })
    }

    /// The environment of a program that uses it.
    ///
    /// # Errors
    /// When it did not say where it is.
    pub fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let said = |name| self.program.address(name).map(str::to_owned);
        let environment = [
            ("AWS_ENDPOINT_URL", format!("http://{}", said("s3")?)),
            ("AWS_ACCESS_KEY_ID", said("key")?),
            ("AWS_SECRET_ACCESS_KEY", said("secret")?),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        Ok(environment.map(|(name, value)| (name.to_owned(), value)).to_vec())
    }
}
