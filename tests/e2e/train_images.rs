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

/// It gave nothing, as an epoch without samples would.
#[tokio::test]
async fn an_epoch_that_a_topic_does_not_have_is_an_error_that_says_so() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("lines.jsonl"), "{}\n{}\n{}\n")?;
    let mut command = programs::python("epoch_dataset.py")?;
    let source = format!("file://{}", dir.path().display());
    command.args(["--bootstrap", &cloud.kafka()?, "--source", &source]);
    let printed = programs::output(command).await?;
    let lines: Vec<&str> = printed.lines().collect();
    let [first, second, beyond, longer, nowhere] = lines[..] else { anyhow::bail!("{printed}") };
    ensure!(first == "epoch 0: 3 samples" && second == "epoch 1: 3 samples", "{printed}");
    let said = "epoch 2: lines has no epoch 2: it has epochs 0 to 1;";
    ensure!(beyond.starts_with(said), "{printed}");
    ensure!(longer == "epoch 2: 3 samples", "{printed}");
    // It was TimeoutError without a word.
    let said = "no broker: 127.0.0.1:1 does not answer (";
    ensure!(nowhere.starts_with(said), "{printed}");
    Ok(())
}
