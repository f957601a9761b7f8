package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"quinto/internal/testcluster"
)

const (
	bigBatch  = 500 // requests of one batch of the load
	bigStarts = 3   // kills and starts
	// bigTail is written before each further kill, so that the log has entries that the state's last flush has not.
	bigTail    = 20 * bigBatch
	bigConns   = 16
	bigReading = 10 * time.Second
	readPoll   = 5 * time.Millisecond

	bigStartTarget  = 2 * time.Second
	bigMemoryTarget = 500.0 // MB
)

// bigResult is what one node with many records did.
type bigResult struct {
	Records   int
	LoadRate  float64         // records per second, through batches
	Starts    []time.Duration // from process start to the first linearizable read
	AfterRead cell
	Idle      resident // after the last start
	Reading   resident // after reading at random for bigReading
	DiskMB    float64
}

// resident is the memory of a process in MB.
type resident struct{ RSS, Anonymous, Peak float64 }

func residentOf(pid int) resident {
	file := fmt.Sprintf("/proc/%d/status", pid)
	return resident{kilobytes(file, "VmRSS"), kilobytes(file, "RssAnon"), kilobytes(file, "VmHWM")}
}

// String is the figures in words.
func (m resident) String() string {
	return fmt.Sprintf("%.0f MB (%.0f MB of it anonymous, the rest pages of files; peak since start %.0f MB)", m.RSS, m.Anonymous, m.Peak)
}

// measureBig fills one node, kills it in the middle of writing and measures how it comes back.
func measureBig(ctx context.Context, o options, dir string) (_ *bigResult, err error) {
	data := filepath.Join(dir, "big")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	cluster, err := testcluster.New(testcluster.Options{
		Binary: o.quinto, Dir: data, Nodes: 1,
		Settings: []string{fmt.Sprintf("kinto.batch_max_requests = %d", bigBatch)},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if err := cluster.Start(ctx); err != nil {
		return nil, err
	}
	node := cluster.Nodes[0]
	c := &contender{Name: "quinto", Addrs: []string{node.HTTP}}
	result := &bigResult{Records: o.bigRecords}
	progress("one node: %d records", o.bigRecords)
	if err := c.setUp(ctx); err != nil {
		return nil, err
	}
	first := o.bigRecords - (bigStarts-1)*bigTail
	begun := time.Now()
	if err := seedBatches(ctx, c, 0, first, bigBatch); err != nil {
		return nil, err
	}
	result.LoadRate = float64(first) / time.Since(begun).Seconds()
	if err := result.restarts(ctx, c, node, first); err != nil {
		return nil, err
	}
	result.Idle = residentOf(node.PID())
	op, err := prepareRead(ctx, c, o.bigRecords)
	if err != nil {
		return nil, err
	}
	if result.AfterRead, err = (load{contender: c, conns: bigConns, time: bigReading, op: op}).run(ctx); err != nil {
		return nil, err
	}
	result.Reading = residentOf(node.PID())
	result.DiskMB = folderMB(node.Dir)
	return result, nil
}

// restarts kills the node after the last acknowledged write and starts it again, several times, and looks that
// nothing acknowledged was lost.
func (b *bigResult) restarts(ctx context.Context, c *contender, node *testcluster.Node, written int) error {
	for i := range bigStarts {
		if i > 0 {
			if err := seedBatches(ctx, c, written, written+bigTail, bigBatch); err != nil {
				return err
			}
			written += bigTail
		}
		if err := node.Kill(); err != nil {
			return err
		}
		begun := time.Now()
		if err := node.Start(); err != nil {
			return err
		}
		if err := firstRead(ctx, c, node, recordID(written-1)); err != nil {
			return err
		}
		b.Starts = append(b.Starts, time.Since(begun))
		progress("start %d after kill -9: first read after %s", i+1, b.Starts[i].Round(time.Millisecond))
		if n, err := c.count(ctx, seedPath); err != nil || n != written {
			return errors.Join(fmt.Errorf("after kill -9 there are %d records, %d were acknowledged", n, written), err)
		}
	}
	return nil
}

// firstRead asks for the last record that was acknowledged until it comes.
func firstRead(ctx context.Context, c *contender, node *testcluster.Node, id string) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	for {
		_, _, err := c.call(ctx, http.MethodGet, seedPath+"/records/"+id, nil)
		if err == nil {
			return nil
		}
		if !node.Running() || ctx.Err() != nil {
			return fmt.Errorf("no read after the start: %w\n%s", err, node.Log())
		}
		time.Sleep(readPoll)
	}
}

// folderMB is the size of the files of a folder. What a compaction removes meanwhile is not counted.
func folderMB(dir string) float64 {
	var bytes int64
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return float64(bytes) / 1e6
}

// print writes the figures and what was aimed at.
func (b *bigResult) print(w io.Writer) {
	var starts []float64
	for _, s := range b.Starts {
		starts = append(starts, s.Seconds())
	}
	found := spreadOf(starts)
	fmt.Fprintf(w, "- load: %s records/s in batches of %d over %d connections; %.0f MB on disk at the end\n", figure(b.LoadRate), bigBatch, seedConns, b.DiskMB)
	fmt.Fprintf(w, "- kill -9 right after the last acknowledged batch, %d times; from process start to the first linearizable read: %s s, all records there\n", len(b.Starts), found)
	fmt.Fprintf(w, "- memory after the last start: %s\n", b.Idle)
	fmt.Fprintf(w, "- memory after %s of random reads over %d connections (%s/s, p50 / p99 %s ms, %d errors): %s\n\n",
		bigReading, bigConns, figure(b.AfterRead.Rate), latencies([]cell{b.AfterRead}), b.AfterRead.Errors, b.Reading)
	most := max(b.Idle.RSS, b.Reading.RSS)
	printTargets(w, []target{
		{fmt.Sprintf("%d records: start after kill -9 to the first linearizable read ≤ %s", b.Records, bigStartTarget), found.String() + " s", found.median <= bigStartTarget.Seconds()},
		{fmt.Sprintf("%d records: memory ≤ %.0f MB", b.Records, bigMemoryTarget), fmt.Sprintf("%.0f MB", most), most <= bigMemoryTarget && most > 0},
	})
}
