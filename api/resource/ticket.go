package resource

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// A ticket stands for the Authorization header of a client that cannot send one,
// as a browser's EventSource: it is given to whoever is authenticated, works once,
// on any node, and not for long. Of a ticket only its hash is kept, in one of a
// fixed number of replicated places; a new ticket takes the place of an old one.
const (
	// TicketPath gives tickets to POST, without the version prefix.
	TicketPath = "/stream-tickets"
	// TicketLifetime is how long a ticket works.
	TicketLifetime = 30 * time.Second
	// TicketStream is how long a stream may last whose ticket stands for credentials that
	// can expire, of which the ticket knows nothing: then a new one has to be bought.
	TicketStream = 5 * time.Minute

	ticketBytes  = 32
	ticketPrefix = plugins.CachePrefix + "tickets/"
	ticketPlaces = 1 << 14
)

var errTicket = &Failure{Status: http.StatusUnauthorized, Errno: ErrnoMissingAuth, Title: "Unauthorized", Message: "The ticket is not known: it works once, and not for long."}

// ticketRoutes are POST of a ticket, and what a node sends to the leader to use one.
func (s *Service) ticketRoutes() []plugins.Route {
	return []plugins.Route{
		{Method: http.MethodPost, Path: TicketPath, Name: "stream-tickets", Plan: s.giveTicket,
			Doc: &plugins.Doc{ID: "create_stream_ticket", Tag: "Streams",
				Responses: `{"201":{"description":"A ticket that works once, for a few seconds, in the parameter ` + TicketParam + ` of a stream.","schema":{"type":"object"}}}`}},
		{Method: http.MethodDelete, Path: TicketPath + "/:place", Name: "stream-ticket", Plan: s.useTicket},
	}
}

// ofTickets reports whether a path is one of ticketRoutes. A readonly server serves them
// all the same: a ticket is in what Kinto has in its cache, which it writes to then, too,
// and changes nothing that a client reads.
func ofTickets(path string) bool {
	return path == TicketPath || strings.HasPrefix(path, TicketPath+"/")
}

func ticketPlace(hash []byte) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(hash)%ticketPlaces))
}

func (s *Service) giveTicket(_ context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	if r.UserID == "" {
		return nil, plugins.ErrDenied
	}
	secret := make([]byte, ticketBytes)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	ticket := base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(ticket))
	value := binary.BigEndian.AppendUint64(nil, uint64(r.Now+fsm.Timestamp(TicketLifetime.Milliseconds())))
	value = append(append(value, hash[:]...), r.UserID...)
	return &plugins.RoutePlan{
		Ops: []fsm.Op{{Type: fsm.OpSetSetting, Name: ticketPrefix + ticketPlace(hash[:]), Value: value}},
		Response: plugins.RouteResponse{Status: http.StatusCreated, Header: map[string]string{"Cache-Control": "no-store"},
			Body: fmt.Appendf(nil, `{"ticket":"%s","expires_in":%d}`, ticket, int(TicketLifetime/time.Second))},
	}, nil
}

// useTicket takes a ticket away and says whose it was. Requests for one place are
// decided one after the other (lockKeys), so one of two that use it gets nothing.
func (s *Service) useTicket(_ context.Context, r *plugins.RouteRequest) (*plugins.RoutePlan, error) {
	settings, ok := r.View.(interface {
		Setting(name string) ([]byte, error)
	})
	if !ok {
		return nil, errTicket
	}
	hash := sha256.Sum256(r.Body)
	place := ticketPlace(hash[:])
	value, err := settings.Setting(ticketPrefix + place)
	if err != nil {
		return nil, err
	}
	const head = 8 + sha256.Size
	if place != r.Params["place"] || len(value) <= head || !bytes.Equal(value[8:head], hash[:]) || fsm.Timestamp(binary.BigEndian.Uint64(value)) < r.Now {
		return nil, errTicket
	}
	return &plugins.RoutePlan{
		Ops:      []fsm.Op{{Type: fsm.OpSetSetting, Name: ticketPrefix + place}},
		Response: plugins.RouteResponse{Status: http.StatusOK, Body: canon.AppendString(nil, string(value[head:]))},
	}, nil
}

// ClaimTicket uses a ticket for the request r and returns whom it stands for. The
// answer, when not nil, is the refusal.
func (s *Service) ClaimTicket(ctx context.Context, r *Request, ticket string) (user string, refusal *Response) {
	hash := sha256.Sum256([]byte(ticket))
	claim := &Request{ID: r.ID, Method: http.MethodDelete, Path: TicketPath + "/" + ticketPlace(hash[:]), Header: Header{}, Body: []byte(ticket),
		Scheme: r.Scheme, Host: r.Host, Prefix: r.Prefix, Client: r.Client}
	resp := s.do(ctx, claim)
	if resp.Status == http.StatusOK {
		if user, ok := canon.Value(resp.Body).String(); ok {
			return user, nil
		}
	}
	resp.Header = s.cors.append(resp.Header, exposeBase, r.Header["origin"])
	return "", resp
}
