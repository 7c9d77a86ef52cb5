"""What an S3 server answers to requests that clients of datasets make: one JSON object of questions and answers, the same for all servers.

S3 is found by the AWS names in the environment, and has nothing yet.
"""

import json
import re

from botocore.exceptions import ClientError

from s3_dataset import BUCKET, NAMES, PART_BYTES, s3

KEYS = [f"a/{name}" for name in NAMES] + ["a/1", "a/2", "a/b/3", "a/b/c/4", "a/b", "a/", "a//b", "b", "c/5"]
RANGES = ["0-0", "2-4", "7-", "8-100", "-3", "-100", "10-11", "-0", "4-2", "x-y", "1-x", "0-1,3-4"]
OBJECT = "Body ContentLength ContentRange AcceptRanges ETag"

client, answers = s3(), {}


def note(question, answer):
    def common(text):
        # What is in a tag is the server's own.
        return re.sub("[0-9a-f]{32}", "HASH", text)

    if common(question) in answers:
        raise SystemExit(f"asked twice: {question}")
    answers[common(question)] = json.loads(common(json.dumps(answer)))


def ask(call, fields="", why="", **asked):
    """Notes the status of the answer, and these of its fields."""
    try:
        answer = getattr(client, call)(Bucket=BUCKET, **asked)
        said = {field: answer.get(field) for field in fields.split()}
        if "Body" in said:
            said["Body"] = said["Body"].read().decode()
    except ClientError as error:
        answer = error.response
        said = {"Code": answer["Error"]["Code"]}
    said["status"] = answer["ResponseMetadata"]["HTTPStatusCode"]
    note(f"{call} {asked} {why}", said)
    return answer


def pages(why="", **asked):
    """Notes all pages of a listing. What a token is made of is the server's own."""
    found, token = [], {}
    while not found or token:
        page = client.list_objects_v2(Bucket=BUCKET, **asked, **token)
        objects = [[each["Key"], each["Size"], each["ETag"]] for each in page.get("Contents", [])]
        folders = [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        found.append([objects, folders, page.get("KeyCount"), page["IsTruncated"]])
        token = {"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else {}
    note(f"pages {asked} {why}", found)


def buckets():
    for call, asked in [("head_bucket", {}), ("get_object", {"Key": "none"}), ("list_objects_v2", {})]:
        ask(call, "", "before there is a bucket", **asked)
    ask("put_object", Key="none", Body=b"")
    ask("create_bucket")
    ask("head_bucket")
    ask("list_objects_v2", "KeyCount IsTruncated")


def listings():
    for key in KEYS:
        client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        ask("get_object", "Body ContentLength", Key=key)
    for most in [1, 3, 4, 1000]:
        pages(MaxKeys=most)
        pages(MaxKeys=most, Prefix="a/", Delimiter="/")
    pages(Prefix="a/b")
    pages(Delimiter="/")
    pages(StartAfter="a/b", Prefix="a/")
    pages(StartAfter="a/zzz")
    pages(Prefix="no such")


def ranges():
    ask("put_object", "ETag", Key="ten", Body=b"0123456789")
    ask("get_object", OBJECT, Key="ten")
    ask("head_object", "ContentLength AcceptRanges ETag", Key="ten")
    for asked in RANGES:
        ask("get_object", OBJECT, Key="ten", Range=f"bytes={asked}")


def conditions():
    first = ask("put_object", "ETag", Key="k", Body=b"0123456789")["ETag"]
    again = ask("put_object", "ETag", "again", Key="k", Body=b"0123456789")["ETag"]
    note("the same content has the same tag", first == again)
    ask("get_object", OBJECT, "its tag", Key="k", Range="bytes=2-4", IfMatch=first)
    ask("put_object", "ETag", Key="k", Body=b"another 10")
    for call in ["get_object", "head_object"]:
        ask(call, "", "the tag that it had", Key="k", IfMatch=first)
        ask(call, Key="none")
        ask(call, "", "of another", Key="none", IfMatch=first)
    ask("get_object", "", "the tag that it had", Key="k", IfMatch=first, Range="bytes=2-4")
    ask("put_object", "ETag", Key="k", Body=b"", IfNoneMatch="*")
    ask("put_object", "ETag", Key="new", Body=b"", IfNoneMatch="*")
    ask("get_object", OBJECT, Key="new")
    ask("get_object", OBJECT, Key="new", Range="bytes=0-9")


def uploads():
    place = {"Bucket": BUCKET, "Key": "parts"}
    place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
    parts = []
    for number, part in enumerate([b"a" * PART_BYTES, b"b"], 1):
        tag = client.upload_part(**place, PartNumber=number, Body=part)["ETag"]
        parts.append({"PartNumber": number, "ETag": tag})
    client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    ask("head_object", "ContentLength ETag", Key="parts")
    ask("get_object", OBJECT, Key="parts", Range="bytes=-3")


def deletions():
    ask("delete_object", Key="k")
    ask("delete_object", "", "again", Key="k")
    ask("get_object", "", "deleted", Key="k")
    ask("delete_objects", Delete={"Objects": [{"Key": f"a/{name}"} for name in NAMES], "Quiet": True})
    pages("after the deletion", Prefix="a/")


for questions in [buckets, listings, ranges, conditions, uploads, deletions]:
    questions()
print(json.dumps(answers))
