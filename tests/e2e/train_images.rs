//! The training example on a dataset topic, in the form that needs no PyTorch.

use anyhow::ensure;
use robustmq_tests::TestCloud;
use robustmq_tests::clients::programs;

/// Shards in a directory, created as a topic through Kafka, each epoch complete, a stop in mid-epoch and another process that goes on.
#[tokio::test]
async fn who_is_stopped_in_an_epoch_goes_on_with_the_same_images_in_the_same_order()
-> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let dir = tempfile::tempdir()?;
    let mut command = programs::python("../../deploy/examples/pytorch/train_images.py")?;
    command.args(["--bootstrap", &cloud.kafka()?, "--light", "--epochs", "3"]);
    command.args(["--stop-after", "70", "--directory"]).arg(dir.path());
    // It fails unless each epoch had each image once, and unless the two runs are alike.
    let printed = programs::output(command).await?;
    let epochs = printed.lines().filter(|line| line.contains("1500 images, each once")).count();
    ensure!(epochs == 3, "{printed}");
    let same = "in the same order: yes; the same weights: yes";
    ensure!(printed.contains(same), "{printed}");
    Ok(())
}
