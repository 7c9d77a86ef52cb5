"""moto's S3 server on a free port, which checks signatures and lists in small pages.

Prints one line when it is ready: where it listens, and the one pair of keys that may do everything.
"""

import argparse
import json
import logging
import os
import threading

parser = argparse.ArgumentParser()
parser.add_argument("--page", type=int, required=True, help="objects of a page of a listing")
arguments = parser.parse_args()
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = str(arguments.page)
# It logs each request otherwise, and has to be told before it is imported.
logging.getLogger("werkzeug").setLevel(logging.WARNING)

import boto3  # noqa: E402
import requests  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"

# Until somebody is known, everybody may ask for anything.
nobody = {"aws_access_key_id": "-", "aws_secret_access_key": "-", "region_name": "us-east-1"}
iam = boto3.client("iam", endpoint_url=endpoint, **nobody)
iam.create_user(UserName="broker")
everything = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
iam.put_user_policy(UserName="broker", PolicyName="all", PolicyDocument=json.dumps(everything))
key = iam.create_access_key(UserName="broker")["AccessKey"]
requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()

print(f"ready s3={host}:{port} key={key['AccessKeyId']} secret={key['SecretAccessKey']}", flush=True)
threading.Event().wait()
