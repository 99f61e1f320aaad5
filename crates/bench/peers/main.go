// Command peers drives etcd and onelog with the same clients, in turn, in one run.
//
// Each client reads two random keys, then writes two others on the condition that what it read is
// unchanged. One client alone writes one key after the other. See docs/benchmarks.md.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	valueBytes      = 100
	fillBatch       = 100
	requestTimeout  = 10 * time.Second
	etcdConnections = 16
)

// A peer is one system under load. Its methods are called by many clients at once.
type peer interface {
	name() string
	fill(ctx context.Context, from, to int) error
	// put writes one key.
	put(ctx context.Context, key int) error
	// transact reads two keys and writes two others if the former are unchanged.
	transact(ctx context.Context, reads, writes [2]int) (committed bool, err error)
}

func keyName(key int) string { return fmt.Sprintf("k%08d", key) }

func value() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	text := make([]byte, valueBytes)
	for n := range text {
		text[n] = letters[rand.IntN(len(letters))]
	}
	return string(text)
}

type etcd struct {
	clients []*clientv3.Client
	next    atomic.Uint64
}

func openEtcd(endpoints string) (*etcd, error) {
	opened := &etcd{}
	for range etcdConnections {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   strings.Split(endpoints, ","),
			DialTimeout: requestTimeout,
		})
		if err != nil {
			return nil, err
		}
		opened.clients = append(opened.clients, client)
	}
	return opened, nil
}

func (e *etcd) client() *clientv3.Client {
	return e.clients[e.next.Add(1)%uint64(len(e.clients))]
}

func (e *etcd) name() string { return "etcd" }

func (e *etcd) fill(ctx context.Context, from, to int) error {
	var puts []clientv3.Op
	for key := from; key < to; key++ {
		puts = append(puts, clientv3.OpPut(keyName(key), value()))
	}
	_, err := e.client().Txn(ctx).Then(puts...).Commit()
	return err
}

func (e *etcd) put(ctx context.Context, key int) error {
	_, err := e.client().Put(ctx, keyName(key), value())
	return err
}

func (e *etcd) transact(ctx context.Context, reads, writes [2]int) (bool, error) {
	client := e.client()
	var conditions []clientv3.Cmp
	for _, key := range reads {
		found, err := client.Get(ctx, keyName(key), clientv3.WithSerializable())
		if err != nil {
			return false, err
		}
		revision := int64(0)
		if len(found.Kvs) > 0 {
			revision = found.Kvs[0].ModRevision
		}
		name := keyName(key)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(name), "=", revision))
	}
	var puts []clientv3.Op
	for _, key := range writes {
		puts = append(puts, clientv3.OpPut(keyName(key), value()))
	}
	answer, err := client.Txn(ctx).If(conditions...).Then(puts...).Commit()
	if err != nil {
		return false, err
	}
	return answer.Succeeded, nil
}

type onelog struct {
	url    string
	client *fasthttp.Client
}

const table = "bench.peers"

func openOnelog(url string, clients int) (*onelog, error) {
	opened := &onelog{url: url, client: &fasthttp.Client{MaxConnsPerHost: clients}}
	definition := map[string]any{"name": table, "kind": "keyed", "value": "json"}
	request, done := context.WithTimeout(context.Background(), requestTimeout)
	defer done()
	status, body, _, err := opened.send(request, "POST", "/v1/tables", definition)
	if err != nil {
		return nil, err
	}
	if status/100 != 2 && status != fasthttp.StatusConflict {
		return nil, fmt.Errorf("making the table: %d: %s", status, body)
	}
	return opened, nil
}

// send answers with the status, the body and the position that was read at. The context has a deadline.
func (o *onelog) send(
	ctx context.Context, method, path string, content any,
) (int, []byte, string, error) {
	request, answer := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(answer)
	request.SetRequestURI(o.url + path)
	request.Header.SetMethod(method)
	if content != nil {
		text, err := json.Marshal(content)
		if err != nil {
			return 0, nil, "", err
		}
		request.SetBodyRaw(text)
	}
	deadline, _ := ctx.Deadline()
	if err := o.client.DoDeadline(request, answer, deadline); err != nil {
		return 0, nil, "", err
	}
	position := string(answer.Header.Peek("Onelog-Position"))
	return answer.StatusCode(), bytes.Clone(answer.Body()), position, nil
}

func (o *onelog) name() string { return "onelog" }

type write struct {
	Op    string `json:"op"`
	Table string `json:"table"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

type read struct {
	Table string `json:"table"`
	Key   string `json:"key"`
}

type transaction struct {
	ReadPosition json.Number `json:"read_position,omitempty"`
	Reads        []read      `json:"reads,omitempty"`
	Writes       []write     `json:"writes"`
}

func putOf(key int) write { return write{"put", table, keyName(key), value()} }

// commit reports whether the transaction was committed; a conflict is no error.
func (o *onelog) commit(ctx context.Context, content transaction) (bool, error) {
	status, body, _, err := o.send(ctx, "POST", "/v1/transactions", content)
	switch {
	case err != nil:
		return false, err
	case status/100 == 2:
		return true, nil
	case status == fasthttp.StatusConflict:
		return false, nil
	default:
		return false, fmt.Errorf("a transaction: %d: %s", status, body)
	}
}

func (o *onelog) fill(ctx context.Context, from, to int) error {
	var content transaction
	for key := from; key < to; key++ {
		content.Writes = append(content.Writes, putOf(key))
	}
	_, err := o.commit(ctx, content)
	return err
}

func (o *onelog) put(ctx context.Context, key int) error {
	_, err := o.commit(ctx, transaction{Writes: []write{putOf(key)}})
	return err
}

func (o *onelog) transact(ctx context.Context, reads, writes [2]int) (bool, error) {
	var content transaction
	at := ""
	for _, key := range reads {
		path := "/v1/tables/" + table + "/keys/" + keyName(key)
		if at != "" {
			path += "?at=" + at
		}
		status, body, position, err := o.send(ctx, "GET", path, nil)
		if err != nil {
			return false, err
		}
		if status != fasthttp.StatusOK {
			return false, fmt.Errorf("a read: %d: %s", status, body)
		}
		at = position
		content.Reads = append(content.Reads, read{table, keyName(key)})
	}
	content.ReadPosition = json.Number(at)
	content.Writes = []write{putOf(writes[0]), putOf(writes[1])}
	return o.commit(ctx, content)
}

type measured struct {
	rate, median, tail float64 // transactions/s, ms, ms
	refused            int64
}

// load keeps `clients` transactions in flight for a time.
func load(p peer, clients, keys int, length time.Duration) (measured, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var refused atomic.Int64
	var failure atomic.Pointer[error]
	times := make([][]float64, clients)
	var group sync.WaitGroup
	begun := time.Now()
	for n := range clients {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Since(begun) < length && failure.Load() == nil {
				reads := [2]int{rand.IntN(keys), rand.IntN(keys)}
				writes := [2]int{rand.IntN(keys / 2), keys/2 + rand.IntN(keys/2)}
				request, done := context.WithTimeout(ctx, requestTimeout)
				from := time.Now()
				committed, err := p.transact(request, reads, writes)
				done()
				if err != nil {
					failure.Store(&err)
					return
				}
				if committed {
					times[n] = append(times[n], float64(time.Since(from).Microseconds())/1000)
				} else {
					refused.Add(1)
				}
			}
		}()
	}
	group.Wait()
	took := time.Since(begun).Seconds()
	if failed := failure.Load(); failed != nil {
		return measured{}, *failed
	}
	var all []float64
	for _, some := range times {
		all = append(all, some...)
	}
	sort.Float64s(all)
	return measured{float64(len(all)) / took, quantile(all, 0.5), quantile(all, 0.99), refused.Load()}, nil
}

func oneClient(p peer, keys, commits int) (float64, error) {
	var times []float64
	for range commits {
		request, done := context.WithTimeout(context.Background(), requestTimeout)
		from := time.Now()
		err := p.put(request, rand.IntN(keys))
		done()
		if err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(from).Microseconds())/1000)
	}
	sort.Float64s(times)
	return quantile(times, 0.5), nil
}

func quantile(sorted []float64, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func median(values []float64) float64 {
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	return quantile(sorted, 0.5)
}

func fillAll(p peer, keys int) error {
	for from := 0; from < keys; from += fillBatch {
		request, done := context.WithTimeout(context.Background(), requestTimeout)
		err := p.fill(request, from, min(from+fillBatch, keys))
		done()
		if err != nil {
			return err
		}
	}
	return nil
}

func run() error {
	endpoints := flag.String("etcd", "", "endpoints of etcd, separated by commas")
	url := flag.String("onelog", "", "address of one node of onelog")
	clients := flag.Int("clients", 256, "transactions in flight")
	keys := flag.Int("keys", 100_000, "keys that are there before")
	seconds := flag.Int("seconds", 5, "length of a round")
	rounds := flag.Int("rounds", 5, "rounds of each")
	flag.Parse()
	var peers []peer
	if *endpoints != "" {
		opened, err := openEtcd(*endpoints)
		if err != nil {
			return err
		}
		peers = append(peers, opened)
	}
	if *url != "" {
		opened, err := openOnelog(*url, *clients)
		if err != nil {
			return err
		}
		peers = append(peers, opened)
	}
	for _, p := range peers {
		if err := fillAll(p, *keys); err != nil {
			return fmt.Errorf("filling %s: %w", p.name(), err)
		}
	}
	rates := map[string][]float64{}
	latencies := map[string][]float64{}
	for round := range *rounds {
		for _, p := range peers {
			loaded, err := load(p, *clients, *keys, time.Duration(*seconds)*time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
			alone, err := oneClient(p, *keys, 500)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name(), err)
			}
			rates[p.name()] = append(rates[p.name()], loaded.rate)
			latencies[p.name()] = append(latencies[p.name()], alone)
			fmt.Printf("round %d  %-6s  %8.0f transactions/s  median %7.2f ms  p99 %7.2f ms  refused %d  one client %.3f ms\n",
				round, p.name(), loaded.rate, loaded.median, loaded.tail, loaded.refused, alone)
		}
	}
	for _, p := range peers {
		fmt.Printf("%-6s  median of rounds: %.0f transactions/s, one client %.3f ms\n",
			p.name(), median(rates[p.name()]), median(latencies[p.name()]))
	}
	if len(peers) == 2 {
		fmt.Printf("onelog / etcd: %.2f\n", median(rates["onelog"])/median(rates["etcd"]))
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}
