package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// bucket is a place in an S3 server.
type bucket struct {
	client *minio.Client
	name   string
	prefix string
}

// s3Tries is how often a request is made; somebody waits for its answer.
const s3Tries = 3

func newBucket(c S3) (*bucket, error) {
	lookup := minio.BucketLookupAuto
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(c.Endpoint, &minio.Options{
		Creds:        credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""),
		Secure:       !c.Insecure,
		Region:       c.Region,
		BucketLookup: lookup,
		MaxRetries:   s3Tries,
	})
	if err != nil {
		return nil, fmt.Errorf("files: s3: %w", err)
	}
	return &bucket{client, c.Bucket, c.Prefix}, nil
}

// Put implements Store. It is one request, which holds no part of the file in
// memory and is signed chunk by chunk; S3 keeps nothing of one that breaks off.
func (b *bucket) Put(ctx context.Context, k Key, r io.Reader, size int64) (sum Sum, err error) {
	m := NewMeasure(r, size)
	if size == 0 { // the library does not look into what is empty
		if _, err := m.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			return sum, err
		}
	}
	// Whether there is more is seen when the server has what it was told to get: an
	// error then would leave open whether it keeps that.
	_, err = b.client.PutObject(ctx, b.name, b.prefix+k.s, io.LimitReader(m, size), size, minio.PutObjectOptions{
		DisableMultipart: true,
		ContentType:      "application/octet-stream",
	})
	if err == nil {
		_, _ = m.Read(make([]byte, 1))
	}
	if wrong := m.err; wrong != nil && !errors.Is(wrong, io.EOF) {
		if err == nil {
			wrong = errors.Join(wrong, b.Delete(context.WithoutCancel(ctx), k))
		}
		return sum, fmt.Errorf("write file: %w", wrong)
	}
	if err != nil {
		return sum, s3Error("write file", err)
	}
	sum, _ = m.Sum()
	return sum, nil
}

// Get implements Store.
func (b *bucket) Get(ctx context.Context, k Key, offset int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if offset > 0 {
		if err := o.SetRange(offset, 0); err != nil {
			return nil, fmt.Errorf("read file: %w", err)
		}
	}
	core := minio.Core{Client: b.client}
	body, _, _, err := core.GetObject(ctx, b.name, b.prefix+k.s, o)
	if minio.ToErrorResponse(err).StatusCode == http.StatusRequestedRangeNotSatisfiable { // at its end
		return http.NoBody, nil
	}
	if err != nil {
		return nil, s3Error("read file", err)
	}
	return body, nil
}

// Stat implements Store.
func (b *bucket) Stat(ctx context.Context, k Key) (Info, error) {
	st, err := b.client.StatObject(ctx, b.name, b.prefix+k.s, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, s3Error("file", err)
	}
	return Info{k, st.Size, st.LastModified}, nil
}

// Delete implements Store.
func (b *bucket) Delete(ctx context.Context, k Key) error {
	err := b.client.RemoveObject(ctx, b.name, b.prefix+k.s, minio.RemoveObjectOptions{})
	if err = s3Error("delete file", err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// List implements Store.
func (b *bucket) List(ctx context.Context, after Key, limit int) ([]Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the library goes on asking otherwise
	o := minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true, MaxKeys: limit + 1}
	if after.s != "" {
		o.StartAfter = b.prefix + after.s
	}
	var out []Info
	for at := range b.client.ListObjects(ctx, b.name, o) {
		if at.Err != nil {
			return nil, s3Error("list files", at.Err)
		}
		k, ok := ParseKey(strings.TrimPrefix(at.Key, b.prefix))
		if !ok || k.s <= after.s { // somebody else's
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, Info{k, at.Size, at.LastModified})
	}
	return out, nil
}

// s3Full are the codes of servers whose disks are full.
var s3Full = map[string]bool{"XMinioStorageFull": true, "QuotaExceeded": true, "InsufficientStorage": true}

// s3Error says what an answer means.
func s3Error(what string, err error) error {
	if err == nil {
		return nil
	}
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	switch {
	case s3Full[r.Code] || r.StatusCode == http.StatusInsufficientStorage:
		return fmt.Errorf("%s: %w: %w", what, ErrFull, err)
	case r.Code == "NoSuchKey", r.StatusCode == http.StatusNotFound && r.Code != "NoSuchBucket":
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
}

// String names the Store for logs.
func (b *bucket) String() string { return "bucket " + b.name }
