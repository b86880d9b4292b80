package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// serveEnv makes the test binary be the gateway of the folder it names.
const serveEnv = "GATEWAY_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := Run(ctx, Config{Dir: dir, AccessKey: "root-key", SecretKey: "root-secret",
			ReaderAccess: "reader-key", ReaderSecret: "reader-secret",
			Ready: func(addr string) { fmt.Println(addr) }})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// start runs a gateway in a child process and returns its address and a
// function that ends it with a signal.
func start(t *testing.T, dir string) (addr string, stop func(os.Signal)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func(sig os.Signal) {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
	}
	t.Cleanup(func() { stop(os.Kill) })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the gateway ended without an address: %v", lines.Err())
	}
	return lines.Text(), stop
}

func client(addr, access, secret string) *s3.Client {
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + addr), UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(access, secret, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		Retryer:                    aws.NopRetryer{},
	})
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func TestGateway(t *testing.T) {
	dir := t.TempDir()
	addr, stop := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := client(addr, "root-key", "root-secret")
	bucket := aws.String("lake")
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	put := func(key, body string, noReplace bool) error {
		in := &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: bytes.NewReader([]byte(body))}
		if noReplace {
			in.IfNoneMatch = aws.String("*")
		}
		_, err := c.PutObject(ctx, in)
		return err
	}
	get := func(c *s3.Client, key string) (string, error) {
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &key})
		if err != nil {
			return "", err
		}
		defer out.Body.Close()
		body, err := io.ReadAll(out.Body)
		return string(body), err
	}

	t.Run("put and get", func(t *testing.T) {
		if err := put("shop/a", "first", false); err != nil {
			t.Fatal(err)
		}
		if body, err := get(c, "shop/a"); err != nil || body != "first" {
			t.Fatalf("got %q, %v", body, err)
		}
	})
	t.Run("if-none-match keeps the first object", func(t *testing.T) {
		if err := put("shop/a", "second", true); code(err) != "PreconditionFailed" {
			t.Fatalf("second put: %v", err)
		}
		if err := put("shop/b", "new", true); err != nil {
			t.Fatal(err)
		}
		if body, _ := get(c, "shop/a"); body != "first" {
			t.Fatalf("the object is %q", body)
		}
	})
	t.Run("multipart", func(t *testing.T) { multipart(ctx, t, c, bucket, get) })
	t.Run("list and delete", func(t *testing.T) {
		out, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("shop/")})
		if err != nil || len(out.Contents) != 3 {
			t.Fatalf("listed %v, %v", out, err)
		}
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("shop/b")}); err != nil {
			t.Fatal(err)
		}
		if _, err := get(c, "shop/b"); code(err) != "NoSuchKey" {
			t.Fatalf("get of a deleted object: %v", err)
		}
	})
	t.Run("the reader reads and changes nothing", func(t *testing.T) { reads(ctx, t, addr, bucket, get) })
	t.Run("a wrong secret is refused", func(t *testing.T) {
		for _, keys := range [][2]string{{"root-key", "x"}, {"reader-key", "x"}, {"nobody", "x"}} {
			if _, err := get(client(addr, keys[0], keys[1]), "shop/a"); err == nil {
				t.Errorf("%s with a wrong secret reads", keys[0])
			}
		}
	})
	t.Run("objects survive kill -9", func(t *testing.T) {
		stop(os.Kill)
		addr, stop = start(t, dir)
		c = client(addr, "root-key", "root-secret")
		if body, err := get(c, "shop/a"); err != nil || body != "first" {
			t.Fatalf("got %q, %v", body, err)
		}
		stop(syscall.SIGTERM)
	})
}

func multipart(ctx context.Context, t *testing.T, c *s3.Client, bucket *string, get func(*s3.Client, string) (string, error)) {
	key := aws.String("shop/large")
	upload, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32}) // the parts' checksums are refused without it
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 6<<20)
	_, _ = rand.Read(body)
	var done []types.CompletedPart
	for i, part := range [][]byte{body[:5<<20], body[5<<20:]} {
		out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: upload.UploadId,
			PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(part)})
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	}
	if _, err := get(c, *key); code(err) != "NoSuchKey" {
		t.Fatalf("an open upload is visible: %v", err)
	}
	if _, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: upload.UploadId,
		IfNoneMatch: aws.String("*"), MultipartUpload: &types.CompletedMultipartUpload{Parts: done}}); err != nil {
		t.Fatal(err)
	}
	if got, err := get(c, *key); err != nil || got != string(body) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
}

func reads(ctx context.Context, t *testing.T, addr string, bucket *string, get func(*s3.Client, string) (string, error)) {
	r := client(addr, "reader-key", "reader-secret")
	if body, err := get(r, "shop/a"); err != nil || body != "first" {
		t.Fatalf("got %q, %v", body, err)
	}
	if _, err := r.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("shop/a")}); err != nil {
		t.Fatal(err)
	}
	key := aws.String("shop/a")
	_, errPut := r.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader([]byte("mine"))})
	_, errDelete := r.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key})
	_, errUpload := r.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	_, errCopy := r.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("c"), CopySource: aws.String("lake/shop/a")})
	_, errBucket := r.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("other")})
	_, errPolicy := r.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: bucket, Policy: aws.String("{}")})
	_, errDrop := r.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
	for name, err := range map[string]error{"put": errPut, "delete": errDelete, "upload": errUpload, "copy": errCopy,
		"create bucket": errBucket, "put policy": errPolicy, "delete bucket": errDrop} {
		if code(err) != "AccessDenied" {
			t.Errorf("%s by the reader: %v", name, err)
		}
	}
	if body, err := get(r, "shop/a"); err != nil || body != "first" {
		t.Fatalf("afterwards %q, %v", body, err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	full := Config{Dir: "x", AccessKey: "a", SecretKey: "s"}
	for name, c := range map[string]Config{
		"no folder":       {AccessKey: "a", SecretKey: "s"},
		"no secret":       {Dir: "x", AccessKey: "a"},
		"reader without":  {Dir: "x", AccessKey: "a", SecretKey: "s", ReaderAccess: "r"},
		"reader is root":  {Dir: "x", AccessKey: "a", SecretKey: "s", ReaderAccess: "a", ReaderSecret: "s"},
		"impossible port": {Dir: "x", AccessKey: "a", SecretKey: "s", Port: 70000},
	} {
		if err := c.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := full.check(); err != nil {
		t.Error(err)
	}
}
