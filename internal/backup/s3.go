package backup

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Options say how to reach a server that speaks S3.
type S3Options struct {
	// Endpoint is the URL of the server; empty: Amazon's.
	Endpoint string
	// Region of the bucket; empty: asked for.
	Region string
}

const s3Scheme = "s3://"

// partBytes is what an upload holds in memory: S3 takes at most 10,000 parts, so
// that a larger archive takes larger ones.
const partBytes = 16 << 20

// S3 is a Place in a bucket, below a prefix.
type S3 struct {
	client         *minio.Client
	bucket, prefix string
}

// OpenS3 takes s3://bucket/prefix. Credentials come from the environment
// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or MINIO's names),
// then from ~/.aws/credentials, then from the machine's role. It connects to nobody.
func OpenS3(address string, o S3Options) (*S3, error) {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(address, s3Scheme), "/")
	if !strings.HasPrefix(address, s3Scheme) || bucket == "" {
		return nil, fmt.Errorf("%q: not s3://bucket/prefix", address)
	}
	endpoint, secure := "s3.amazonaws.com", true
	lookup := minio.BucketLookupAuto
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("S3 endpoint %q: not the URL of a server", o.Endpoint)
		}
		endpoint, secure = u.Host, u.Scheme == "https"
		lookup = minio.BucketLookupPath // not every server has a name for each bucket
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(endpoint, &minio.Options{
		Secure: secure, Region: o.Region, BucketLookup: lookup, Transport: transport,
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Transport: transport}},
		}),
	})
	if err != nil {
		return nil, err
	}
	return &S3{client: client, bucket: bucket, prefix: strings.Trim(prefix, "/")}, nil
}

// String implements Place.
func (s *S3) String() string { return s3Scheme + path.Join(s.bucket, s.prefix) }

// Below implements Place.
func (s *S3) Below(folder string) Place {
	return &S3{client: s.client, bucket: s.bucket, prefix: path.Join(s.prefix, folder)}
}

func (s *S3) key(name string) string { return path.Join(s.prefix, name) }

// Put implements Place: an object appears once its last part is there.
func (s *S3) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if size > partBytes {
		o.PartSize = max(partBytes, uint64(size)/9_000)
	}
	if _, err := s.client.PutObject(ctx, s.bucket, s.key(name), r, size, o); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// Open implements Place.
func (s *S3) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	object, err := s.client.GetObject(ctx, s.bucket, s.key(name), minio.GetObjectOptions{})
	if err == nil {
		_, err = object.Stat()
	}
	if err == nil {
		return object, nil
	}
	if code := minio.ToErrorResponse(err).Code; code == minio.NoSuchKey {
		return nil, fmt.Errorf("%w: %s/%s", ErrNone, s, name)
	}
	return nil, fmt.Errorf("%s: %w", s, err)
}

// List implements Place.
func (s *S3) List(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing if it was not read to its end
	prefix := s.prefix
	if prefix != "" {
		prefix += "/"
	}
	var names []string
	for o := range s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, fmt.Errorf("%s: %w", s, o.Err)
		}
		if name := strings.TrimPrefix(o.Key, prefix); named(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove implements Place.
func (s *S3) Remove(ctx context.Context, name string) error {
	if err := s.client.RemoveObject(ctx, s.bucket, s.key(name), minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// OpenPlace opens a place by its address: s3://bucket/prefix, or a folder.
func OpenPlace(address string, o S3Options) (Place, error) {
	if strings.HasPrefix(address, s3Scheme) {
		return OpenS3(address, o)
	}
	return &Folder{address}, nil
}

// Split takes the address of one archive apart into its place and its name. The
// name is empty if the address is that of a place: the newest archive there is
// meant then.
func Split(address string, isFolder func(string) bool) (place, name string) {
	if !strings.HasPrefix(address, s3Scheme) {
		if isFolder(address) {
			return address, ""
		}
		return path.Split(address)
	}
	dir, last := path.Split(strings.TrimPrefix(address, s3Scheme))
	if strings.HasSuffix(last, Suffix) && dir != "" {
		return s3Scheme + dir, last
	}
	return address, ""
}
