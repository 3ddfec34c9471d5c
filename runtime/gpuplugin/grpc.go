package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// gRPC over HTTP/2, as far as a device plugin needs it: one message in, and one or more out.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

const (
	// https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
	ok            = 0
	unknown       = 2
	unimplemented = 12

	contentType = "application/grpc"
	prefix      = 5 // whether it is compressed, and four bytes of its length
	// Of what a kubelet asks; the names of all GPUs of a node are some hundred bytes.
	most     = 1 << 20
	patience = 10 * time.Second
)

type (
	sender func(message []byte) error
	ended  <-chan struct{}
	// method answers a call by what it sends, until it returns or the call has ended.
	method func(request []byte, send sender, end ended) error
)

// protocols are HTTP/2 alone, without encryption.
func protocols() *http.Protocols {
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	return only
}

// answering is a server's side.
func answering(methods map[string]method) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		code, said := ok, ""
		if answer, there := methods[r.URL.Path]; !there {
			code, said = unimplemented, "there is no "+r.URL.Path
		} else if err := answered(answer, w, r); err != nil {
			code, said = unknown, err.Error()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", url.PathEscape(said))
	})
}

func answered(answer method, w http.ResponseWriter, r *http.Request) error {
	request, err := unframed(r.Body)
	if err != nil {
		return err
	}
	send := func(message []byte) error {
		if _, err := w.Write(framed(message)); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	return answer(request, send, r.Context().Done())
}

// call is a client's side: the answer of a method at a socket.
func call(socket, path string, request []byte) ([]byte, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial, Protocols: protocols()}
	defer transport.CloseIdleConnections()
	asked, err := http.NewRequest(http.MethodPost, "http://localhost"+path, bytes.NewReader(framed(request)))
	if err != nil {
		return nil, err
	}
	asked.Header.Set("Content-Type", contentType)
	asked.Header.Set("TE", "trailers")
	answer, err := (&http.Client{Transport: transport, Timeout: patience}).Do(asked)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if err != nil {
		return nil, err
	}
	// Where there is no body, they are headers.
	said := answer.Trailer
	if said.Get("Grpc-Status") == "" {
		said = answer.Header
	}
	if status := said.Get("Grpc-Status"); status != strconv.Itoa(ok) {
		text, _ := url.PathUnescape(said.Get("Grpc-Message"))
		return nil, fmt.Errorf("%s: HTTP status %d, gRPC status %q: %s", path, answer.StatusCode, status, text)
	}
	return unframed(bytes.NewReader(body))
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

var errFrame = errors.New("what was sent is no single message that is not compressed")

// unframed is a message out of its frame.
func unframed(from io.Reader) ([]byte, error) {
	all, err := io.ReadAll(io.LimitReader(from, most))
	if err != nil {
		return nil, err
	}
	if len(all) < prefix || all[0] != 0 || int(binary.BigEndian.Uint32(all[1:])) != len(all)-prefix {
		return nil, errFrame
	}
	return all[prefix:], nil
}
